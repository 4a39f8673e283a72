"""Inspection of all files of a data set."""
