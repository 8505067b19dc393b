"""How good the answers are: quality, alignment, pictures."""
