"""Spikes and blurred frames made from sharp frames."""
