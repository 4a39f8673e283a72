"""Ways to compute the same numbers; `compute_backend` chooses one by name."""
