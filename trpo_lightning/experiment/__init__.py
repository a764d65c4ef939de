"""From files and command lines to runs, figures and tables."""
