"""Spaces: compression stages, one folder a family and one file a technique."""
