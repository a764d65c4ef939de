"""One run in one directory: files, resumable checkpoints, signals, evaluation, replay."""
