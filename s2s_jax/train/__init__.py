"""How a model learns: loss, what the decoder is fed, optimizer, devices, checkpoints, the loop."""
