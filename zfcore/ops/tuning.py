"""Properties that choices between CUDA kernels take a GPU to have: an H200's. Predictions, in one place, until a measurement
replaces them.

Nothing is asked of the device itself. `python -m bench --tune` puts what it has measured in the place of most of the fields
that decide about speed alone; model.py makes times of them. The others decide bits as well, those of sums that are cut into
slices and added up afterwards: they are the same on every GPU, and with other values a network gets other roundings."""
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Tuning:
    """Speed alone:

    multiprocessors    that launches are cut for; of an H200, by its data sheet
    clock_ghz          10^9 cycles a second, by its data sheet: 4096 FLOPs of bf16 a cycle and multiprocessor are its 989
                       TFLOP/s
    fma_tflop_s        10^12 FLOPs a second of multiply-adds in float32, two each; predicted, of 67 by the data sheet
    tf32_tflop_s       of mma.sync in tf32; predicted, of 494: 62 %, as others have measured mma.sync on Hopper
    bf16_tflop_s       of mma.sync in bf16; predicted, of 989
    wgmma_tflop_s      of wgmma in bf16; predicted, of 989: products of matrices written by hand have reached 763 to 808
    copy_gb_s          10^9 bytes a second that a copy within the GPU's memory reads and writes; predicted, of 4800
    l2_gb_s            from the L2 cache into shared memory; predicted, between the 5500 and 7000 that others have measured
    l2_latency         cycles from asking the L2 cache for a tile to its coming, under load; predicted
    strip_blocks       blocks a multiprocessor that rows of conv2d_maxpool are cut into; predicted

    Bits too, all predicted:

    forward_blocks     blocks wanted of a forward pass whose sums are cut, two on each of 132 multiprocessors
    gradient_blocks    of a filter gradient, four
    wgmma_blocks       of a filter gradient on wgmma, one
    bias_blocks        of a bias gradient, eight
    slice_terms        least terms of a slice of a sum of products
    bias_slice_terms   of a bias gradient"""
    multiprocessors: int = 132
    clock_ghz: float = 1.83
    fma_tflop_s: float = 60.0
    tf32_tflop_s: float = 306.0
    bf16_tflop_s: float = 613.0
    wgmma_tflop_s: float = 790.0
    copy_gb_s: float = 4300.0
    l2_gb_s: float = 6000.0
    l2_latency: float = 600.0
    strip_blocks: int = 4
    forward_blocks: int = 2*132
    gradient_blocks: int = 4*132
    wgmma_blocks: int = 132
    bias_blocks: int = 8*132
    slice_terms: int = 512
    bias_slice_terms: int = 32768

    def tflop_s(self, precision):
        """10^12 FLOPs a second of products in this precision, three of which in tf32 make one of fp32x3."""
        return {"fp32": self.fma_tflop_s, "fp32x3": self.tf32_tflop_s/3, "tf32": self.tf32_tflop_s, "bf16": self.bf16_tflop_s,
                "wgmma": self.wgmma_tflop_s}[precision]

    def pool_products(self):
        """Most products of an output with which a convolution in fp32 gains by taking its max pooling along: it computes about
        a sixth of them twice, and saves to write and to read 4 bytes."""
        return 6*8/(1e9*self.copy_gb_s)/(2/(1e12*self.fma_tflop_s))


SHIPPED = current = Tuning()


@contextmanager
def use(**changes):
    """Let kernels be chosen by other values of these fields of `Tuning` inside. Yields the Tuning that is then in force."""
    global current
    before, current = current, replace(current, **changes)
    try:
        yield current
    finally:
        current = before
