"""Spike streams as arrays: time windows, representations, simulation, reconstruction."""
