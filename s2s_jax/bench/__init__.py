"""Benchmarks: speed against the limit of the machine, and against PyTorch."""
