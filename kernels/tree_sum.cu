/* tree_sum.cu - the sum of what the leaves of a binary tree hold, in the tree's order, so that it has the same bits however the leaves
   were joined into parts before: sum[i] = ((part 0 + part 1) + (part 2 + part 3)) + ...

   parts      up to TENSORS arrays, `total` elements each                                  float32   C-contiguous
   present    bit t: parts.of[t] holds the leaves from number t on, up to the next bit's, which together are one node of the tree; where
              bit t is 0 the array is not read
   sum        may be one of the parts

   work      one thread = LANES neighbouring elements, which it holds of all parts
   traffic   4 bytes an element of each part and of the sum; over the bandwidth, that is the floor
   spec      zfcore/ops/tree_sum.py: tree_sum_reference                                                   */
#ifndef LANES
#define LANES 4
#endif
#define TENSORS 16
template <class T> struct Each { T of[TENSORS]; };
struct __align__(4 * LANES) Pack { float v[LANES]; };

extern "C" __global__ void tree_sum(Each<const float *> parts, int present, float *sum, long long total)
{
    long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * LANES;
    if (i >= total) return;
    Pack x[TENSORS];
#pragma unroll
    for (int t = 0; t < TENSORS; t++)
        if (present >> t & 1) x[t] = *(const Pack *)(parts.of[t] + i);
#pragma unroll
    for (int s = 1; s < TENSORS; s *= 2)                                    // a node's right half begins s leaves after its left one
#pragma unroll
        for (int t = 0; t + s < TENSORS; t += 2 * s)
            if (present >> (t + s) & 1)
#pragma unroll
                for (int k = 0; k < LANES; k++) x[t].v[k] += x[t + s].v[k];
    *(Pack *)(sum + i) = x[0];
}
