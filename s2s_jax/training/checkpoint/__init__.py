"""Checkpoints: written atomically, verified by checksum, never executed."""
