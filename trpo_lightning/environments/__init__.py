"""Environments: backends behind one interface, their spaces, snapshots of their state."""
