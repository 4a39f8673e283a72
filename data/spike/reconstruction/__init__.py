"""Pictures from spikes without training."""

METHOD_NAMES = ("window", "interval", "k_interval", "gaussian", "charge", "plasticity")
"""The names of reconstruct.METHODS, for the help of commands without importing torch."""

DEFAULT_METHOD = "charge"
"""The best on recorded streams at all thresholds and in low light (`scripts/benchmark/threshold_table.py`)."""
