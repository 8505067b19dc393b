"""From lines of text to batches of ids, and back: NumPy and the standard library only."""
