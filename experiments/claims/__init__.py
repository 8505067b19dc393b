"""Sweeps that test one claim of the literature each: `s2s sweep run NAME`."""
