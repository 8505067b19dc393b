"""How a trained model answers: search over any model, and lines in, lines out."""
