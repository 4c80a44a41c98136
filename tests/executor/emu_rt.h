/* emu_rt.h - what the three runtime files share: the fibers, the pending copies and the race check. */
#pragma once
#include "emu.h"
#include <vector>

namespace emu {

struct Copy { char *dst; const char *src; unsigned bytes; bool pred; unsigned group; Site here; };

enum State { READY, AT_BARRIER, AT_CLUSTER, AT_WARP, AT_MBARRIER, AT_REGISTERS, FINISHED };

struct Fiber {
    State state;
    const char *doing; Site here;                             // the primitive it is in, or was in last
    int barrier;                                              // AT_BARRIER: which
    unsigned mask; void *mine; Collective compute;            // AT_WARP: with which lanes, for what
    uint64_t *bar; unsigned parity;                           // AT_MBARRIER
    std::vector<Copy> copies; unsigned group;                 // cp.async in flight; number of the group being filled
    unsigned products; uint64_t products_hash; bool fenced;   // wgmma issued so far; wgmma_fence since the last wait
    unsigned registers;                                       // that it may use: all start with an equal share of the SM's
};

extern Fiber fibers[MAX_THREADS];                    // of the blocks of a cluster, one block after the other
extern int current;                                  // the running one
extern int threads;                                  // how many of them there are
extern const Launch *launch;
extern char *arenas[MAX_CLUSTER], *arena;            // dynamic shared memory of each block, and of the running thread's
inline int rank_of(int fiber)                        // the number of its block in the cluster
{ return launch->cluster == 1 ? 0 : fiber / (int)launch->block; }                // a division takes longer than all else of a turn
inline int first_of(int rank) { return rank * (int)launch->block; }              // its first fiber
inline unsigned registers_at_launch()                // of a thread, in a kernel with __launch_bounds__(threads, 1)
{ return std::min(255u, 65536 / launch->block) / 8 * 8; }
bool has_left(int rank);                             // all threads of that block have returned
bool in_arena(const char *p, int rank);
const char *who(int fiber);                          // "thread 12", in a cluster "thread 12 of block 1"
extern char *statics; extern size_t statics_bytes;   // the __shared__ variables

Fiber &enter(const char *doing, Site here);          // notes where the running fiber is
void wait_as(State state);                           // gives the turn away until another fiber calls `wake`
void wake(int thread);
void offer_turn();                                   // after an arrive: lets others run first, in the unruly schedules
bool on_stack(const char *p);                        // a local variable of some thread
unsigned roll();                                     // the schedule's dice
const char *place(uint64_t where);                   // "file.cu:12", or "<pc +1f0>" for emu.py to look up
inline uint64_t where_of(Site s) { return (uint64_t)s.file | (uint64_t)s.line << 48; }
[[noreturn]] void fail_at(uint64_t where, const char *format, ...) __attribute__((format(printf, 2, 3)));

void ptx_start_block();                              // emu_ptx.cpp: forget everything in flight
void ptx_end_thread();                               //   what nobody has waited for lands at the latest then
void ptx_end_block();                                //   refuse to end with copies or products in flight
bool ptx_finish_a_copy();                            //   lazy TMA loads take effect when nothing else can run

namespace race {                                     // emu_race.cpp; all idle unless launch->race
enum Kind { READ, WRITE, ATOMIC, PROXY = 4 };         // PROXY with one of them: by TMA or wgmma, not by a thread
inline Kind by_proxy(Kind kind) { return Kind(kind | PROXY); }
typedef std::vector<uint32_t> Clock;                 // per thread, the time up to which its accesses are known
void start_launch();
void start_block();
void end_block();
void end_launch();
void all_meet();                                     // cluster_sync; __syncthreads where a block is by itself
void warp_meets(int first, unsigned mask);           // __syncwarp
void release(Clock &clock, int thread);              // what `thread` knows flows into the barrier ...
void acquire(const Clock &clock, int thread);        // ... and from there into `thread`
void fence(int thread);                              // what it has written is seen by TMA and wgmma from now on
void access(int thread, const void *p, size_t bytes, Kind kind, uint64_t where);
void on_its_way(const char *to, size_t bytes, uint64_t where);            // a cp.async of the running thread; 0: it has landed
void block_meets(int rank);                          // __syncthreads
void leave(int rank);                                // all threads of that block have returned
inline void access(const void *p, size_t bytes, Kind kind, Site here)
{ if (launch->race) access(current, p, bytes, kind, where_of(here)); }
}

}
