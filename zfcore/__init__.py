"""zfcore: the ZFNet of Zeiler & Fergus (2013), trained and looked into with NumPy, CuPy and our own CUDA kernels."""
__version__ = "0.1.0"
