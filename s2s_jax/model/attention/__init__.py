"""Attention as a product of independent choices."""
