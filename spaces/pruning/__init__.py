"""Pruning: fewer weights."""
