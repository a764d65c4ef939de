"""Figures for print, drawn with matplotlib as PNG and PDF."""
