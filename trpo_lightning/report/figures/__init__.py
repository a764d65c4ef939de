"""Figures for paper, drawn by matplotlib: PNG and PDF."""
