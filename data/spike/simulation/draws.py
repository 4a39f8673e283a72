"""Random draws that the generated data sets share.

Test: `python -m pytest tests/data/test_dataset_guided_synthetic.py tests/data/test_dataset_spike_synthetic.py`.
"""

import math
from collections.abc import Sequence

import numpy as np

from data.spike.simulation.noise import SensorNoise


def log_uniform(rng: np.random.Generator, bounds: Sequence[float]) -> float:
    """A number between two positive bounds whose logarithm is uniform."""
    return math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1])))


def drawn_noise(rng: np.random.Generator) -> SensorNoise:
    """Shot noise in half of the draws, and faults of a sensor up to what spike cameras show."""
    return SensorNoise(
        photons=float(np.exp(rng.uniform(math.log(20), math.log(1000)))) if rng.random() < 0.5 else None,
        dark_current=rng.uniform(0, 0.02),
        gain_spread=rng.uniform(0, 0.03),
        threshold_spread=rng.uniform(0, 0.03),
        hot_pixels=rng.uniform(0, 5e-4),
        dead_pixels=rng.uniform(0, 5e-4),
        spurious=rng.uniform(0, 1e-3),
    )
