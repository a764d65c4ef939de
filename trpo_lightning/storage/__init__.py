"""Files that survive a crash intact: atomic writes, checksums, versioned formats, locks."""
