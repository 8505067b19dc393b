"""Training: objectives, scheduled sampling, optimizer, devices, checkpoints and the loop."""
