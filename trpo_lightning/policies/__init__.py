"""Stochastic policies: networks from observations to distributions over actions."""
