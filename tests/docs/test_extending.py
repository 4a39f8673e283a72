"""docs/extending.md: its parts register, are chosen by option, and compute what they say."""

import math
import re

import numpy as np
import pytest
import torch

import models.losses
from data.spike.encoding import build_encoding
from data.spike.sync import ExposureWindow
from models.layers.backends.backend import COMPUTE_BACKENDS
from tests.docs.test_readme import ROOT
from tests.models.vrt_cases import small_vrt
from utils.utils_registry import LOSSES, REPRESENTATIONS


def test_parts_of_the_page(monkeypatch):
    for registry in (LOSSES, REPRESENTATIONS, COMPUTE_BACKENDS):
        monkeypatch.setattr(registry, "_parts", dict(registry._parts))  # what the page registers ends with the test
    page = (ROOT / "docs/extending.md").read_text()
    for source in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(source, "docs/extending.md", "exec"), {"__name__": "page"})

    class Options:
        G_logcosh_scale = 2.0

    loss = models.losses.define_loss("logcosh", Options())
    value = float(loss(torch.tensor([3.0]), torch.tensor([1.0])))
    assert value == pytest.approx(math.log(math.cosh(4)) / 2, abs=1e-6)

    spikes = np.zeros((10, 1, 2), np.uint8)
    spikes[4:, 0, 0] = 1
    encoded = build_encoding({"representation": "first_spike"}, 2.0)(spikes, ExposureWindow(2, 10, 5))
    np.testing.assert_allclose(encoded[0, 0], [0.25, 1.0])

    network, x = small_vrt(compute_backend="definition"), torch.rand(1, 2, 3, 16, 16)
    with torch.no_grad():
        restored = network(x)
        network.compute_backend = "sdpa"
        torch.testing.assert_close(restored, network(x), rtol=0, atol=1e-4)
