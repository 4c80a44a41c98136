/* conv.cuh - the sizes of a convolution, which every kernel of it takes by value as the argument `conv` */
#pragma once

struct Conv {
    int C, H, W, N;                   // maps in, their rows and columns, images
    int F, K, S, P;                   // filters, which are the maps out; their size, stride and padding
    int Ho, Wo, groups;               // rows and columns of the maps out, groups of maps

    __device__ __forceinline__ int maps() const { return C / groups; }              // in, of a group
    __device__ __forceinline__ int filters() const { return F / groups; }           // of a group
};

struct Span { int first, count; };
