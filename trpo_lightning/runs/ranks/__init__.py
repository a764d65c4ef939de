"""A run in several processes: the first one starts the others, or torchrun has started them all."""
