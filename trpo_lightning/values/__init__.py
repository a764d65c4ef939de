"""Value functions: predict expected returns, and fit them to a batch."""
