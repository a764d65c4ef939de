"""Weights & Biases logging, which never stops a run and never loses a row."""
