"""The mathematics of the update: pure functions of tensors and callables of theta. Start with `trust_region.py`."""
