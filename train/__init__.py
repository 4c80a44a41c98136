"""Training, from the checkout: `python -m train`, and `python -m train.NAME` for the tools beside it."""
