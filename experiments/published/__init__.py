"""Published numbers: one sweep per published table, run by `s2s sweep run published/NAME`."""
