/* ptx.cuh - every PTX primitive the kernels use, one small inline function each. The CPU executor has its own ptx.cuh with
   the same names and signatures (tests/executor), so a kernel says `#include <ptx.cuh>` and holds no asm itself. */
#pragma once

// Dynamic shared memory: DYN_SHARED(raw); Tile &tile = *reinterpret_cast<Tile *>(raw);
#define DYN_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
