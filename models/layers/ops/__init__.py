"""Operators of the networks: linear layers, convolutions, warping, processing in chunks."""
