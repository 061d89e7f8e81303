"""The engine `ray`: trials and measurements on a Ray cluster.

Ray is imported only in this package. What runs on the node of a device does not import torch.
"""
