"""The spike toolbox: `python -m scripts.spikes --help`."""
