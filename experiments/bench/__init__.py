"""The PyTorch side of `s2s bench --against torch`."""
