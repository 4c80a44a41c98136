/* In the place of CuPy's header: complex numbers, of which zfcore has none, take g++ a second a kernel. */
#pragma once
