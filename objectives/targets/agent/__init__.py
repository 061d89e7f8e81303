"""The device agent: a machine's runtimes over HTTP, and the device that asks it.

Importing this package does not import torch.
"""
