"""Operators that networks are made of: linear layers, convolutions, warping."""
