"""Beam search: one compiled loop, several policies."""
