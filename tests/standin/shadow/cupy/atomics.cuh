/* In the place of CuPy's header: atomics are cuda_emu.h's. */
#pragma once
