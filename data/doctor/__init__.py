"""Inspection of every file of a data set."""
