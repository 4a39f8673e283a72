"""Restoring clips in tiles and scoring them."""
