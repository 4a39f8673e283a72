"""Spike streams as arrays: exposures, representations, simulation, reconstruction."""
