"""`report.html`: one page that opens from disk, loads nothing, and draws its figures from the data inside it."""
