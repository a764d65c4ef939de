"""What keeps a run alive, or ends it in one line, when an environment raises, hangs, dies or returns nonsense."""
