/* dropout.cu - dropout with a mask that is drawn, not stored; forward and backward are the same kernel.
   y[e] = x[e] * scale where word e%4 of Philox4x32-10(counter, key) < keep_below, else 0
   counter = e/4, layer, step's low word, step's high word      key = seed's low word, seed's high word
   keep_below = keep_prob * 2^32, rounded up; scale = 1/keep_prob
   e = row*N + first + column, the element's place in a batch of N images of which x holds n, from image `first` on

   x, y      (rows,n)    stored    C-contiguous; y may be x; rows*N at most 2^34. A whole batch comes as one row, n = N

   step      uint64, one number in device memory, so that a launch kept in a CUDA graph finds the number of its step

   work      one thread = what a row has of the four elements of one counter, `each` threads a row; moved at once where
             LANES is 4: every row then begins at a multiple of 4 and is whole fours
   traffic   8*rows*n bytes; over the bandwidth, that is the floor. About 100 integer operations a thread hide behind it
   spec      zfcore/ops/dropout.py: dropout_reference; the same mask bit for bit. Philox: Salmon et al. 2011          */
#ifndef LANES
#define LANES 4
#endif
#include <stored.cuh>

extern "C" __global__ void dropout(const stored *x, stored *y, long long rows, long long n, long long first, long long N,
    long long each, unsigned long long seed, unsigned int layer, const unsigned long long *step,
    unsigned long long keep_below, float scale)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x, row = i / each;
    if (row >= rows) return;
    long long begin = row * N + first, counter = begin / 4 + i % each;

    unsigned a = counter, b = layer, c = *step, d = *step >> 32, k0 = seed, k1 = seed >> 32;
#pragma unroll
    for (int turn = 0; turn < 10; turn++) {
        unsigned high_a = __umulhi(0xD2511F53u, a), low_a = 0xD2511F53u * a;
        unsigned high_c = __umulhi(0xCD9E8D57u, c), low_c = 0xCD9E8D57u * c;
        a = high_c ^ b ^ k0, b = low_c, c = high_a ^ d ^ k1, d = low_a;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }

    unsigned words[4] = {a, b, c, d};
#pragma unroll
    for (int lane = 0; lane < 4; lane += LANES) {
        long long column = 4 * counter + lane - begin;         // of the row in x; a row may begin or end inside a counter
        if (column < 0 || column >= n) continue;
        Pack values = *(const Stored *)(x + row * n + column);
        for (int k = 0; k < LANES; k++) values.v[k] = words[lane + k] < keep_below ? values.v[k] * scale : 0;
        *(Stored *)(y + row * n + column) = values;
    }
}
