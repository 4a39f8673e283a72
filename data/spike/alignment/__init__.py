"""Finds how a frame camera and a spike camera go together: time, space, brightness (`align.py` is the beginning)."""
