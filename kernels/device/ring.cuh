/* ring.cuh - level 3 of the ladder in conv2d.cu: the next tiles are copied while these are multiplied

   A ring of STAGES pairs of tiles. cp.async carries numbers from global to shared memory without passing registers, so
   the copies of tile t + STAGES-1 are under way while tile t is multiplied. What a step of the reduction means in
   addresses is the same for a whole row of a tile; so BK threads work it out one tile ahead, into `plan`, and the copying
   is left with a sum and two comparisons. One barrier per tile is enough for all of it: it says that the copies of tile t
   have landed, that nobody still reads tile t-1, whose place is filled next, and that the plan of that filling is there.

   source.plan(steps, first)   BK threads write what steps first, first+1 ... are; all they need for it lies in shared
                               memory too (Reduction), as registers are what this kernel is short of
   source.copy(tiles, steps)   starts this thread's share of the copies of such steps; past the last tile it copies what
                               nobody reads, which costs less than to ask */
#pragma once
#include <tiles.cuh>

#ifndef STAGES
#define STAGES 2
#endif

template <class Source>
struct Shared {
    typename Source::Tiles ring[STAGES];
    typename Source::Step plan[2][BK];
    typename Source::Reduction reduction;
};

// The tiles of a kernel, called `name`: more than 48 KB lie in the shared memory that a launch asks for, SHARED bytes.
#ifdef SHARED
#define SHARED_TILES(Source, name)                                                                                  \
    static_assert(sizeof(Shared<Source>) <= SHARED, "fits what a launch asks for");                                 \
    DYN_SHARED(name##_bytes);                                                                                       \
    Shared<Source> &name = *reinterpret_cast<Shared<Source> *>(name##_bytes)
#else
#define SHARED_TILES(Source, name) __shared__ Shared<Source> name
#endif

template <class Source>
__device__ __forceinline__ void multiply(Source &source, int tiles, Shared<Source> &shared, float (&sum)[TM][TN])
{
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) sum[i][j] = 0;
    __syncthreads();                                    // the Reduction is there
#if STAGES == 1                         // level 2 of the ladder by itself, to be measured: nothing is copied ahead
    for (int t = 0; t < tiles; t++) {
        source.plan(shared.plan[0], t * BK);
        __syncthreads();
        source.copy(shared.ring[0], shared.plan[0]);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        multiply_tiles(shared.ring[0], sum);
    }
#else
#pragma unroll
    for (int t = 0; t < STAGES - 1; t++) {
        source.plan(shared.plan[t % 2], t * BK);
        __syncthreads();
        source.copy(shared.ring[t], shared.plan[t % 2]);
        cp_async_commit();
    }
    source.plan(shared.plan[(STAGES - 1) % 2], (STAGES - 1) * BK);
    for (int t = 0; t < tiles; t++) {
        int next = t + STAGES - 1;
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        source.copy(shared.ring[next % STAGES], shared.plan[next % 2]);
        cp_async_commit();
        source.plan(shared.plan[(next + 1) % 2], (next + 1) * BK);
        multiply_tiles(shared.ring[t % STAGES], sum);
    }
#endif
}

// Starts copying COUNT numbers, 16 aligned bytes of them or one; zeros where not `wanted`, `from` being valid all the same. One
// of 16 bits passes a register: cp.async takes no less than 4 bytes.
template <int COUNT>
__device__ __forceinline__ void copy_numbers(stored *to, const stored *from, bool wanted)
{
    static_assert(COUNT == 1 || COUNT * sizeof(stored) == 16, "one, or 16 bytes");
    if constexpr (COUNT > 1) cp_async16(to, from, wanted);
    else if constexpr (sizeof(stored) == 4) cp_async4(to, from, wanted);
    else *to = wanted ? *from : 0;
}

const int OUTSIDE = -0x40000000;      // a row that lies in no map, nor does the sum of two such
