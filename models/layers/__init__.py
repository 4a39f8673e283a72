"""The parts that networks are assembled from."""
