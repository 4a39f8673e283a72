"""Scores of restored clips and the report that shows them."""
