"""How a model learns: loss, what the decoder is fed, optimiser, devices, checkpoints, the loop."""
