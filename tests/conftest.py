"""Settings of every test run."""

import torch

torch.set_num_threads(1)  # the models are tiny: more threads only wait for each other
