"""Sequence-level training: whole outputs are drawn or searched for, and weighed by a reward."""
