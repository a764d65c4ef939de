"""`report.html`: one page that opens from disk, loads nothing else, and draws figures from the data inside it."""
