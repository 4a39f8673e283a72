"""Layers for spikes: encoder, temporal attention, firing rates, small U-Nets."""
