"""Sequence-to-sequence learning with attention in JAX: a toolkit for experiments."""

__version__ = "0.1.0"
