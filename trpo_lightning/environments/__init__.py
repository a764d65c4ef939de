"""Environments: backends behind one interface, their spaces, and snapshots of their state."""
