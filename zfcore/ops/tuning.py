"""Properties that choices between CUDA kernels take a GPU to have: an H200's. Predictions, in one place, until a measurement
replaces them.

Nothing is asked of the device itself. `python -m bench --tune` puts what it has measured in the place of three of the fields
that decide about speed alone. The others decide bits as well, those of sums that are cut into slices and added up afterwards:
they are the same on every GPU, and with other values a network gets other roundings."""
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Tuning:
    """Speed alone:

    multiprocessors    that launches are cut for; of an H200, by its data sheet
    fma_tflop_s        10^12 FLOPs a second of multiply-adds in float32, two each; predicted, of 67 by the data sheet
    copy_gb_s          10^9 bytes a second that a copy within the GPU's memory reads and writes; predicted, of 4800
    strip_blocks       blocks a multiprocessor that rows of conv2d_maxpool are cut into; predicted

    Bits too, all predicted:

    mma_cost           of a product on tensor cores, in numbers read from shared memory in the same time: by all of tf32
    forward_blocks     blocks wanted of a forward pass whose sums are cut, two on each of 132 multiprocessors
    gradient_blocks    of a filter gradient, four
    wgmma_blocks       of a filter gradient on wgmma, one
    bias_blocks        of a bias gradient, eight
    slice_terms        least terms of a slice of a sum of products
    bias_slice_terms   of a bias gradient"""
    multiprocessors: int = 132
    fma_tflop_s: float = 60.0
    copy_gb_s: float = 4300.0
    strip_blocks: int = 4
    mma_cost: float = 1/20
    forward_blocks: int = 2*132
    gradient_blocks: int = 4*132
    wgmma_blocks: int = 132
    bias_blocks: int = 8*132
    slice_terms: int = 512
    bias_slice_terms: int = 8192

    def pool_products(self):
        """Most products of an output with which a convolution in fp32 gains by taking its max pooling along: it computes about
        a sixth of them twice, and saves to write and to read 4 bytes."""
        return 6*8/(1e9*self.copy_gb_s)/(2/(1e12*self.fma_tflop_s))


current = Tuning()


@contextmanager
def use(**changes):
    """Let kernels be chosen by other values of these fields of `Tuning` inside. Yields the Tuning that is then in force."""
    global current
    before, current = current, replace(current, **changes)
    try:
        yield current
    finally:
        current = before
