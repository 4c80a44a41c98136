"""Command lines of training: `python -m train`, and `python -m train.NAME` for the tools beside it. The library is
zfcore/training."""
import zfcore  # noqa: F401  first, for a Ctrl-C while the rest is imported
