"""Scores of restored clips, and the report of them."""
