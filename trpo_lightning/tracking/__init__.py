"""Weights & Biases, which never stops a run and loses nothing."""
