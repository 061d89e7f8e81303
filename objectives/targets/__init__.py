"""Targets: where and how an artifact runs. Importing this package does not import torch."""
