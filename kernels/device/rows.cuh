/* rows.cuh - where a thread works in kernels whose blocks are cut from the rows of all maps, laid one behind another without a gap:
   so no block is nearly empty where a map is a single pixel. A thread has LANES neighbouring images, a warp walks them. */
#pragma once

// What this thread works on: map, row, pixel, and pack of images. False beyond the last row of the last map.
struct Place { int map, row, pixel, pack; };

__device__ __forceinline__ bool my_place(Place &at, int rows, int height, int width, int packs)
{
    unsigned in_row = (unsigned)width * packs;
    unsigned long long first = (unsigned long long)blockIdx.x * blockDim.x;           // the block's first thread
    unsigned k = first % in_row + threadIdx.x;                                        // counted from the row it is in
    unsigned row = first / in_row + k / in_row;
    at.map = row / height;
    at.row = row % height;
    at.pixel = k % in_row / packs;
    at.pack = k % in_row % packs;
    return row < rows;
}
