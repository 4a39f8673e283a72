"""Pictures from spikes without training."""

METHOD_NAMES = ("window", "interval", "k_interval", "gaussian", "plasticity")
"""Of reconstruct.METHODS, without importing torch: command lines list them in their help."""
