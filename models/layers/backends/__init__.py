"""Back ends: implementations of the same computation; `compute_backend` chooses one by name."""
