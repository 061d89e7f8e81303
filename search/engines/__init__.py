"""Where trials run: one file an engine, and what engines share."""
