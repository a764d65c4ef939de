"""Figures, tables and one page about the runs so far."""
