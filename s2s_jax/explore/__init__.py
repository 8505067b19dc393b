"""The explorer: what a model does with one sentence, as plain values of JSON, and the page that shows them."""
