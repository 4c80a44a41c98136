/* wgmma_ring.cuh - level 8 of the ladder in conv2d.cu: tiles that a warp of its own fetches and whole warpgroups multiply

   d (BM,BN) += a (BM,CHUNK) b (CHUNK,BN), bf16 in, float32 sums, for a Hopper GPU. A block has three warpgroups. One thread of
   the last, the producer, asks the tensor memory accelerator for tiles, as far ahead as the ring of STAGES has room; the other
   two, the consumers, each multiply 64 rows of a by all of b, straight from shared memory, and hold the sums in their
   registers, of which the producers give them theirs. Two barriers a stage hand it over: `full` counts the bytes that come,
   `empty` the eight warps that have read it. While a product runs its warps ask for the next: the tensor cores never wait for
   an instruction.

   Every tile is made of boxes of 64 numbers (128 bytes) by up to 64 rows, as they lie in memory, with the swizzle that TMA
   writes and wgmma reads. Which way a box lies, its rows along k or its columns, is in the product's operands: A_MN, B_MN.

   A block stays for good and takes every gridDim.x-th tile, so that the next tile's numbers come while one is stored. Which
   block takes a tile changes no bit of it.

   Work says what the tiles are: begin(tile) -> the number of steps of its sum; load(step, stage, bar) asks for a step's boxes,
   of sizeof(Stage) bytes in all; store(d) takes the sums of a consumer. */
#pragma once
#include <ptx.cuh>
#include <conv.cuh>

#ifndef BN
#define BN 256                        // columns of a tile: 128, 192 or 256
#endif
#ifndef CHUNK
#define CHUNK 64                      // terms of the sum in a step: rows of a box where these run along k
#endif
#ifndef STAGES
#define STAGES 4
#endif
#define CONSUMERS 2
#define BM (64 * CONSUMERS)
#define UNITS (BN / 64)
#define THREADS (128 * (CONSUMERS + 1))
static_assert(BN % 64 == 0 && CHUNK % 16 == 0 && CHUNK <= 64, "whole boxes, whole products");

struct Stage { unsigned char a[CONSUMERS][CHUNK * 128], b[UNITS][CHUNK * 128]; };
struct WgmmaRing {
    Stage stages[STAGES];
    Mbar full[STAGES], empty[STAGES];
};
static_assert(sizeof(WgmmaRing) <= SHARED, "fits what a launch asks for");

struct Turn {                         // of the ring: a stage, and the parity of the phase in which it is filled
    int stage;
    unsigned parity;
    __device__ __forceinline__ void advance() { if (++stage == STAGES) stage = 0, parity ^= 1; }
};

// The sums of a consumer over `steps` stages. A stage is let go when the product after it has been asked for and its own is
// done.
template <bool A_MN, bool B_MN>
__device__ __forceinline__ void consume(WgmmaRing &ring, Turn &turn, int consumer, int steps, float (&d)[BN / 2])
{
#pragma unroll
    for (int i = 0; i < BN / 2; i++) d[i] = 0;
    int before = 0;
    for (int step = 0; step < steps; step++) {
        const Stage &stage = ring.stages[turn.stage];
        mbar_wait(&ring.full[turn.stage], turn.parity);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < CHUNK; k += 16) {
            Operand a = A_MN ? wgmma_mn_major(stage.a[consumer] + 128 * k, sizeof stage.a[0], 1024)
                             : wgmma_k_major(stage.a[consumer] + 2 * k);
            Operand b = B_MN ? wgmma_mn_major(stage.b[0] + 128 * k, sizeof stage.b[0], 1024)
                             : wgmma_k_major(stage.b[0] + 2 * k);
            wgmma_bf16<A_MN, B_MN>(d, a, b, true);
        }
        wgmma_commit();
        wgmma_wait<1>();
        if (step > 0 && threadIdx.x % 32 == 0) mbar_arrive(&ring.empty[before]);
        before = turn.stage;
        turn.advance();
    }
    wgmma_wait<0>();
    if (steps > 0 && threadIdx.x % 32 == 0) mbar_arrive(&ring.empty[before]);
}

// The course of a block through its tiles, of `tiles`.
template <bool A_MN, bool B_MN, class Work>
__device__ __forceinline__ void walk(Work &work, int tiles, WgmmaRing &ring)
{
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) mbar_init(&ring.full[s], 1), mbar_init(&ring.empty[s], 4 * CONSUMERS);
        mbar_fence_init();
    }
    __syncthreads();
    int warpgroup = threadIdx.x / 128;
    Turn turn = {0, 0};
    if (warpgroup == CONSUMERS) {
        registers_decrease<56>();
        if (threadIdx.x % 128 == 0)
            for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
                int steps = work.begin(tile);
                for (int step = 0; step < steps; step++) {
                    mbar_wait(&ring.empty[turn.stage], turn.parity ^ 1);
                    mbar_arrive_expect_tx(&ring.full[turn.stage], sizeof(Stage));
                    work.load(step, ring.stages[turn.stage], &ring.full[turn.stage]);
                    turn.advance();
                }
            }
    } else {
        registers_increase<224>();
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            int steps = work.begin(tile);
            float d[BN / 2];
            consume<A_MN, B_MN>(ring, turn, warpgroup, steps, d);
            work.store(d);
        }
    }
}

// Row of the tile that d[i] of this consumer is in, and column.
__device__ __forceinline__ int wgmma_row(int i) { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * (i / 2 % 2); }
__device__ __forceinline__ int wgmma_column(int i) { return i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }
