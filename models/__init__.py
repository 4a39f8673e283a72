"""Everything between a batch and an updated weight: networks, losses, the model wrapper."""
