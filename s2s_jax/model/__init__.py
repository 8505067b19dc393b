"""The network: pure functions over a dict of parameters."""
