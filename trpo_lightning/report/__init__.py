"""Figures, tables and one page of what has run so far."""
