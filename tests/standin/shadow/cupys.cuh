/* What CuPy's own kernels use beyond cuda_emu.h. */
#pragma once
#include <cassert>
#include <cmath>
using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline long long __float2ll_rn(float x) { return llrintf(x); }
