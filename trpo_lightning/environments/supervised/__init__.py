"""Keeps a run alive, or ends it with one line, when an environment raises, hangs, dies or returns nonsense."""
