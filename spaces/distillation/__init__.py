"""Recovery training and distillation."""
