"""Grids of experiments: planned, trained on one or many machines, compared with statistics, and reported."""
