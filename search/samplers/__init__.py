"""Samplers: what proposes candidates, one file each."""
