"""Learning from a trajectory more than once: the batches of the last M policies in one update.

Generalized policy improvement (Queeney et al. 2021, arXiv 2111.00072; 2022, arXiv 2206.13714). `memory.py` keeps
rollouts (what of them: `past.py`), `mixture.py` makes one batch of them, `diagnostics.py` says how far to trust it.
"""
