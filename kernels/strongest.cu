/* strongest.cu - the pictures that excite each unit most: what a batch adds to the lists that are kept.

   best[n]   = max of y[m,p,n] over places p, and the first such p; a NaN wins over numbers, and enters no list
   list of m = its `listed` strongest entries, then those of images from .. until - 1, strongest first; a tie goes to the earlier

   y         (M,places,N)   stored    the maps, C-contiguous, as are all
   values    (M,listed)     float32   in place, falling
   pictures  (M,listed)     int64     in place; image n is picture `picture` + n - from
   places    (M,listed)     int64     in place; p, which is row*Wo + column

   work      one block = one unit: a warp reads 32 neighbouring images, coalesced, and WARPS warps share the places. Image by
             image one thread enters what they have found; most images are below all that is listed. No atomics
   traffic   4*M*places*N bytes; the lists are small. Over the bandwidth, that is the floor
   spec      zfcore/ops/strongest.py: strongest_reference                                                        */
#include <stored.cuh>
#define IMAGES 32
#define WARPS 32

#define MINUS_INFINITY __int_as_float(0xff800000)

struct Best { float value; int place; };

// Whether `a` is to be found before `b`: it is higher, or as high and earlier.
__device__ __forceinline__ bool before(Best a, Best b)
{
    bool nan = a.value != a.value, other = b.value != b.value;
    if (nan || other) return nan && !(other && b.place < a.place);
    return a.value > b.value || (a.value == b.value && a.place < b.place);
}

// Enter `best` of a picture into a list; the last one there goes.
__device__ __forceinline__ void enter(Best best, long long picture, float *values, long long *pictures, long long *places, int listed)
{
    if (!(best.value > values[listed - 1])) return;
    int rank = listed - 1;
    for (; rank > 0 && best.value > values[rank - 1]; rank--)
        values[rank] = values[rank - 1], pictures[rank] = pictures[rank - 1], places[rank] = places[rank - 1];
    values[rank] = best.value, pictures[rank] = picture, places[rank] = best.place;
}

extern "C" __global__ void __launch_bounds__(IMAGES * WARPS) strongest_enter(
    const stored *y, float *values, long long *pictures, long long *places,
    int listed, int pixels, int N, int from, int until, long long picture)
{
    __shared__ Best held[WARPS][IMAGES];
    int lane = threadIdx.x % IMAGES, warp = threadIdx.x / IMAGES;
    long long unit = blockIdx.x, list = unit * listed;
    const stored *map = y + unit * pixels * N;
    for (int n0 = from; n0 < until; n0 += IMAGES) {
        Best best = {MINUS_INFINITY, pixels};
        if (n0 + lane < until) {
#pragma unroll 4
            for (int p = warp; p < pixels; p += WARPS) {
                Best here = {in_float(map[(long long)p * N + n0 + lane]), p};
                if (before(here, best)) best = here;
            }
        }
        held[warp][lane] = best;
        __syncthreads();
        if (warp == 0) {
            for (int k = 1; k < WARPS; k++)
                if (before(held[k][lane], best)) best = held[k][lane];
            held[0][lane] = best;
        }
        __syncthreads();
        if (threadIdx.x == 0)
            for (int n = n0; n < min(n0 + IMAGES, until); n++)
                enter(held[0][n - n0], picture + n - from, values + list, pictures + list, places + list, listed);
        __syncthreads();
    }
}
