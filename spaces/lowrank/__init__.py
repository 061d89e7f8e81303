"""Low-rank factorisation: products of small matrices for large ones."""
