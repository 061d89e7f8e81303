"""Objectives: what is measured on an artifact, where, and what beats what."""
