"""Parts of networks that read spikes: encoder, temporal attention, firing rates, small U-Nets."""
