"""Floor 1: pure functions on batch-last arrays, one noun a file.

Each file holds, side by side: the slow and obvious float64-capable reference that is the specification, the NumPy form,
the CUDA kernels it declares, and the backward. Forward returns (y, cache), backward takes (dy, cache).

    N images   C maps in   F filters = maps out   H W size in   Ho Wo size out   K window   S stride   P padding
    p q output pixel   r s place in the window   x in, y out, w (C,K,K,F), b (F,)   d in front: gradient
"""
