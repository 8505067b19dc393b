"""Experiments that ship with the package: one file per experiment, `s2s train NAME` runs it."""
