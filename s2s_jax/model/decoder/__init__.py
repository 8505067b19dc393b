"""The recurrent network that writes the target."""
