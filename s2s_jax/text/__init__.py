"""Sources of text, tokenizers and batches of ids; this package never imports jax."""
