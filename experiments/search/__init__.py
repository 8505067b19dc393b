"""Comparisons of decoding methods."""
