/* wgmma_ring.cuh - level 8 of the ladder in conv2d.cu: tiles that a warp of its own fetches and whole warpgroups multiply

   d (BM,BN) += a (BM,CHUNK) b (CHUNK,BN), bf16 in, float32 sums, for a Hopper GPU. A block has three warpgroups, or four. One
   thread of the last, the producer, asks the tensor memory accelerator for tiles, as far ahead as the ring of STAGES has room;
   the others, the CONSUMERS, each multiply 64 rows of a by all of b, straight from shared memory, and hold the sums in their
   registers, of which the producers give them theirs. Two barriers a stage hand it over: `full` counts the bytes that come,
   `empty` the warps that have read it. While a product runs its warps ask for the next: the tensor cores never wait for an
   instruction.

   Every tile is made of boxes of 64 numbers (128 bytes) by up to 64 rows, as they lie in memory, with the swizzle that TMA
   writes and wgmma reads. Which way a box lies, its rows along k or its columns, is in the product's operands: A_MN, B_MN.

   Two blocks that run at the same time, a cluster, take a pair of neighbouring tiles, which read the same b or the same a. What
   both read they fetch in turn, box by box, each box for both: so it crosses from the L2 cache once. A stage is empty when the
   warps of both blocks have read it, as either block may write into both; so both take as many steps, and zeros stand in for
   what one of them lacks.

   The blocks stay for good and take every so-many-th pair, so that the next pair's numbers come while one is stored. Which
   blocks take a pair changes no bit of it.

   Work says what the tiles are: begin(pair, rank) -> the number of steps of its sum, the same for both ranks; load(step, stage,
   bar) asks for a step's boxes, of sizeof(Stage) bytes in all with those that the other block asks for; used(step) says
   whether the rows of this consumer are not all zeros there; store(d) takes the sums of a consumer. */
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
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#define BM (64 * CONSUMERS)
#define UNITS (BN / 64)
#define PAIR 2                        // blocks of a cluster: a pair of tiles
#define THREADS (128 * (CONSUMERS + 1))
static_assert(BN % 64 == 0 && CHUNK % 16 == 0 && CHUNK <= 64, "whole boxes, whole products");

struct Stage { unsigned char a[CONSUMERS][CHUNK * 128], b[UNITS][CHUNK * 128]; };
struct WgmmaRing {
    Stage stages[STAGES];
    Mbar full[STAGES], empty[STAGES];
};
static_assert(sizeof(WgmmaRing) <= SHARED, "fits what a launch asks for");

// Tiles are dealt in pairs, out of two neighbouring columns of them at a time. Two of a column read the same b, the dearer
// operand; where a column has an odd count, the last ones of both columns read the same a. An odd last column is dealt by
// itself: if its count is odd too, its last pair has a tile m = tiles_m, of which there is nothing to fetch, nothing to store.
struct Tile { int m, n; bool shares_a; };                 // else it shares b
__device__ __forceinline__ int pairs_of(int tiles_m, int tiles_n)
{
    return tiles_n / 2 * tiles_m + tiles_n % 2 * ((tiles_m + 1) / 2);
}
__device__ __forceinline__ Tile tile_of(int pair, int rank, int tiles_m, int tiles_n)
{
    int n = pair / tiles_m * 2, i = pair % tiles_m, half = tiles_m / 2;
    if (n + 1 == tiles_n) return {2 * i + rank, n, false};
    if (i == 2 * half) return {tiles_m - 1, n + rank, true};
    return {2 * (i % half) + rank, n + i / half, false};
}

// The same dealt out of neighbouring rows: for tiles that differ in their steps from row to row.
__device__ __forceinline__ Tile tile_along(int pair, int rank, int tiles_m, int tiles_n)
{
    Tile turned = tile_of(pair, rank, tiles_n, tiles_m);
    return {turned.n, turned.m, !turned.shares_a};
}

// Asks for a box, the i-th of its operand and step: for this block, or where both read it, in turn for both.
template <class... Int>
__device__ __forceinline__ void fetch(bool shared, int i, int rank, void *to, const TensorMap *map, Mbar *bar, Int... at)
{
    if (!shared) tma_load_5d(to, map, bar, at...);
    else if (i % PAIR == rank) tma_multicast_5d((1 << PAIR) - 1, to, map, bar, at...);
}

struct Turn {                         // of the ring: a stage, and the parity of the phase in which it is filled
    int stage;
    unsigned parity;
    __device__ __forceinline__ void advance() { if (++stage == STAGES) stage = 0, parity ^= 1; }
};

// This warp has read a stage: either block may be the one that fills it next.
__device__ __forceinline__ void release(Mbar &empty)
{
    if (threadIdx.x % 32 < PAIR) mbar_arrive_at(threadIdx.x % 32, &empty);
}

// The sums of a consumer over `steps` stages. A stage is let go when the product after it has been asked for and its own is
// done. A step without products has no group: an empty one would be the one that wait<1> leaves open.
template <bool A_MN, bool B_MN, class Work>
__device__ __forceinline__ void consume(const Work &work, WgmmaRing &ring, Turn &turn, int steps, float (&d)[BN / 2])
{
    const int consumer = threadIdx.x / 128;
#pragma unroll
    for (int i = 0; i < BN / 2; i++) d[i] = 0;
    int before = 0;
    for (int step = 0; step < steps; step++) {
        const Stage &stage = ring.stages[turn.stage];
        mbar_wait(&ring.full[turn.stage], turn.parity);
        wgmma_fence();
        if (work.used(step)) {
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
        } else wgmma_wait<0>();
        if (step > 0) release(ring.empty[before]);
        before = turn.stage;
        turn.advance();
    }
    wgmma_wait<0>();
    if (steps > 0) release(ring.empty[before]);
}

// The course of a block, one of a cluster, through its tiles, of so many pairs.
template <bool A_MN, bool B_MN, class Work>
__device__ __forceinline__ void walk(Work &work, int pairs, WgmmaRing &ring)
{
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) mbar_init(&ring.full[s], 1), mbar_init(&ring.empty[s], PAIR * 4 * CONSUMERS);
        mbar_fence_init();
    }
    cluster_sync();                   // the barriers of both blocks are there
    int warpgroup = threadIdx.x / 128, rank = cluster_rank();
    Turn turn = {0, 0};
    if (warpgroup == CONSUMERS) {
        registers_decrease<CONSUMERS == 2 ? 72 : 80>();
        if (threadIdx.x % 128 == 0)
            for (int pair = blockIdx.x / PAIR; pair < pairs; pair += gridDim.x / PAIR) {
                int steps = work.begin(pair, rank);
                for (int step = 0; step < steps; step++) {
                    mbar_wait(&ring.empty[turn.stage], turn.parity ^ 1);
                    mbar_arrive_expect_tx(&ring.full[turn.stage], sizeof(Stage));          // the other's may have come before
                    work.load(step, ring.stages[turn.stage], &ring.full[turn.stage]);
                    turn.advance();
                }
            }
    } else {
        registers_increase<CONSUMERS == 2 ? 216 : 144>();
        for (int pair = blockIdx.x / PAIR; pair < pairs; pair += gridDim.x / PAIR) {
            int steps = work.begin(pair, rank);
            float d[BN / 2];
            consume<A_MN, B_MN>(work, ring, turn, steps, d);
            work.store(d);
        }
    }
    cluster_sync();                   // nobody writes into this block's memory any more
}

// Row of the tile that d[i] of this consumer is in, and column.
__device__ __forceinline__ int wgmma_row(int i) { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * (i / 2 % 2); }
__device__ __forceinline__ int wgmma_column(int i) { return i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }
