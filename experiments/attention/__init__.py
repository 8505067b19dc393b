"""Comparisons of attention mechanisms."""
