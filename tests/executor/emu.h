/* emu.h - what the kernel side (cuda_emu.h, ptx.cuh) asks of the runtime (emu_rt.cpp, emu_ptx.cpp, emu_race.cpp).

One fiber plays one CUDA thread; a fiber runs until it has to wait, then the runtime picks the next one. Every primitive
that can wait or fail takes its place in the .cu file as a last, defaulted argument, so that a report can name the line. */
#pragma once
#include <cstddef>
#include <cstdint>

struct uint3 { unsigned x, y, z; };
extern uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emu {

struct Site { const char *file; int line; };
#define EMU_HERE emu::Site here = {__builtin_FILE(), __builtin_LINE()}

enum Schedule { FORWARD, REVERSE, RANDOM, SKEWED };
const int MAX_THREADS = 1024, MAX_SHARED = 227 * 1024, MAX_CLUSTER = 8;

// ------------------------------------------------------------------------------- one launch, as emu.py describes it
struct Buffer {                   // host memory that one or several arguments point into
    char *host; size_t bytes, skew; int writable; const char *name;
    char *device, *mapping; size_t mapped;                  // the guarded copy, and the mapping with its guard areas
};
struct Value { void *bytes; int buffer; size_t offset; };   // an argument; with buffer >= 0 its first 8 bytes = address
struct Launch {
    void (*call)(void **); void *(*touch)(); const char *name;
    Value *values; int n_values;
    Buffer *buffers; int n_buffers;
    unsigned grid[3], block, cluster, shared;                       // cluster: blocks that run together
    int schedule, eager_copies, eager_wgmma, race; unsigned seed; double seconds;
    char *message, *report; size_t message_size, report_size;
};

// ---------------------------------------------------------------------------------------- waiting for other threads
typedef void (*Collective)(void **lanes, unsigned mask);
void warp(unsigned mask, const char *doing, void *mine, Collective compute, Site);   // the last lane computes for all
void arrive(const char *doing, int barrier, unsigned threads, bool wait, Site);
void cluster_sync(Site);
unsigned cluster_rank();
int  vote(const char *doing, int predicate, Site);                   // __syncthreads, returning how many predicates hold
[[noreturn]] void fail(Site, const char *format, ...) __attribute__((format(printf, 2, 3)));

// -------------------------------------------------------------------------- asynchronous copies and products
void cp_async(void *dst, const void *src, unsigned bytes, bool pred, Site);
void cp_async_commit(Site);
void cp_async_wait(unsigned pending, Site);
void mbar_init(uint64_t *bar, unsigned count, Site);
void mbar_arrive(uint64_t *bar, unsigned bytes, Site);
void mbar_arrive_at(unsigned rank, uint64_t *bar, Site);
void mbar_wait(uint64_t *bar, unsigned parity, Site);
void tma_load(void *dst, const void *map, uint64_t *bar, int rank, const int *at, const unsigned short *im2col,
              const unsigned short *blocks, Site);               // blocks: of the cluster, one bit each; null: this one
void ldmatrix(unsigned *r, int count, bool transposed, const void *row, Site);
void mma(const char *op, float *d, const unsigned *a, const unsigned *b, Site);
void wgmma(bool tf32, int n, float *d, uint64_t a, uint64_t b, bool accumulate, bool a_mn, bool b_mn, Site);
void wgmma_fence(Site);
void wgmma_commit(Site);
void wgmma_wait(unsigned pending, Site);
void fence_async_proxy(Site);
void registers_change(bool more, unsigned count, Site);

// -------------------------------------------------------------------------------------------------- shared memory
unsigned char *dynamic_shared();                      // 1024-byte aligned
unsigned shared_address(const void *p, Site);         // offset in the block's dynamic shared memory
void atomic(const void *p, size_t bytes, Site);       // tells the race check of an atomic access

}
