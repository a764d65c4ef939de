"""Files that a crash leaves whole: atomic writes, checksums, formats."""
