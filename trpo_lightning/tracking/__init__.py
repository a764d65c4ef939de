"""Trackers on top of the local files, which never stop a run and never lose a row."""
