"""Sampling schemes: data from environments. Nothing beyond this package ever sees a fake transition."""
