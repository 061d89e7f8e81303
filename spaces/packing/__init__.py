"""Weights that are stored compactly and unpack themselves when a runtime loads the file."""
