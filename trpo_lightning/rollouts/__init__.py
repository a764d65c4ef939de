"""Environments and sampling schemes. Nothing behind this package ever sees a fake transition."""
