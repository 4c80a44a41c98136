/* axis.cuh - forward and transposed convolution as one gather, along the rows and along the columns of the maps

   Forward, output row p reads with tap t input row p*S - P + t. Transposed, the rows h of dx are taken apart into S phases by
   (h + P) mod S; a phase meets just the taps r = phase + S*t, and reads with them dy row (h + P - phase)/S - t: exact, with no
   zeros between the rows. Axis holds either. */
#pragma once
#include <conv.cuh>

struct Axis {
    int outputs, first, hop;          // output i of this phase is row first + hop*i of its map
    int size;                         // of the output map
    int inputs, start, stride, way;   // output i reads with tap t input row start + stride*i + way*t, of `inputs`
    int taps, tap, tap_hop;           // tap t of this phase is row tap + tap_hop*t of the filter
};

__device__ __forceinline__ Axis forward_axis(int H, int Ho, int K, int S, int P)
{
    return {.outputs = Ho, .first = 0, .hop = 1,
            .size = Ho,
            .inputs = H, .start = -P, .stride = S, .way = 1,
            .taps = K, .tap = 0, .tap_hop = 1};
}

__device__ __forceinline__ Axis transpose_axis(int H, int Ho, int K, int S, int P, int phase)
{
    int first = ((phase - P) % S + S) % S;                                  // the first h with (h + P) mod S = phase
    return {.outputs = (H - first + S - 1) / S, .first = first, .hop = S,
            .size = H,
            .inputs = Ho, .start = (first + P - phase) / S, .stride = 1, .way = -1,
            .taps = (K - phase + S - 1) / S, .tap = phase, .tap_hop = S};
}

// All phases together: output i is row first + hop*i + phase, which for the first and the last i may not be there, and tap t
// row phase + tap_hop*t of the filter, of which a later phase may have one less. What is read does not depend on the phase.
__device__ __forceinline__ Axis transpose_axis(int H, int Ho, int K, int S, int P)
{
    int start = P / S;
    return {.outputs = (H - 1 + P) / S - start + 1, .first = S * start - P, .hop = S,
            .size = H,
            .inputs = Ho, .start = start, .stride = 1, .way = -1,
            .taps = (K + S - 1) / S, .tap = 0, .tap_hop = S};
}

// The taps that meet the map for at least one of the outputs lo..hi.
__device__ __forceinline__ Span taps_inside(const Axis &axis, int lo, int hi)
{
    int low = axis.start + axis.stride * lo, high = axis.start + axis.stride * hi;        // rows that tap 0 reads
    int first = axis.way > 0 ? -high : low - (axis.inputs - 1);
    int last = axis.way > 0 ? axis.inputs - 1 - low : high;
    first = max(first, 0), last = min(last, axis.taps - 1);
    return {first, max(last - first + 1, 0)};
}
