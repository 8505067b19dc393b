"""Exported runs: compiled programs that do not need flax, and parameters by name."""
