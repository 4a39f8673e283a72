"""Computation on CPUs."""
