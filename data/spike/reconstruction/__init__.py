"""Pictures from spikes without training."""
