"""VRT gives the published network's numbers and has its keys (tests/fixtures/vrt; see vrt_cases.py for the weights)."""

import json

import numpy as np
import pytest
import torch

from models.layers.backends.backend import COMPUTE_BACKENDS
from models.network_vrt import VRT
from tests.models.vrt_cases import FIXTURES, OFFICIAL_001, OFFICIAL_006, fixture_vrt, key_list

NAMES = ["deblur_pa2", "deblur_pa6", "denoise_nonblind", "sr4_pa4", "vfi_pa0"]


def _skip_where_another_would_run(backend: str, dtype: torch.dtype) -> None:
    reason = COMPUTE_BACKENDS.get(backend)().refusal(torch.device("cpu"), dtype)
    if reason is not None:
        pytest.skip(reason)


def _output_error(name: str, dtype: torch.dtype, backend: str = "sdpa") -> torch.Tensor:
    _skip_where_another_would_run(backend, dtype)
    network, arrays = fixture_vrt(name, dtype)
    network.compute_backend = backend
    with torch.no_grad():
        y = network(torch.from_numpy(arrays["x"]).to(dtype))
    if "crop" in arrays:
        assert list(y.shape) == arrays["y_shape"].tolist()
        torch.testing.assert_close(y.mean().item(), float(arrays["y_mean"]), rtol=0, atol=1e-5)
        torch.testing.assert_close(y.std().item(), float(arrays["y_std"]), rtol=0, atol=1e-5)
        top, bottom, left, right = arrays["crop"]
        y = y[:, arrays["frames"], :, top:bottom, left:right]
    return (y.double() - torch.from_numpy(arrays["y"]).double()).abs()


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, backend) for name in NAMES for backend in ("sdpa", "native")),
        ("deblur_pa2", "eager"),
        ("deblur_pa6", "eager"),
        ("sr4_pa4", "eager"),
    ],
)
def test_output_in_float32(name: str, backend: str) -> None:
    error = _output_error(name, torch.float32, backend)
    assert error.max() < 1e-3
    assert error.mean() < 1e-5


@pytest.mark.parametrize(
    "name",
    [
        "deblur_pa2",
        "deblur_pa6",
        "vfi_pa0",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("denoise_nonblind", "sr4_pa4")),
    ],
)
def test_output_in_float64(name: str) -> None:
    # The stored outputs are float32: half a unit in the last place of 2 is 1.2e-7.
    assert _output_error(name, torch.float64).max() < 3e-7


@pytest.mark.parametrize(
    ("dtype", "backend", "tolerance"),
    [
        (torch.float32, "sdpa", 1e-2),
        (torch.float32, "eager", 1e-2),
        (torch.float32, "native", 1e-2),
        pytest.param(torch.float64, "sdpa", 1e-6, marks=pytest.mark.slow),
    ],
)
def test_gradient_norms(dtype: torch.dtype, backend: str, tolerance: float) -> None:
    _skip_where_another_would_run(backend, dtype)
    network, arrays = fixture_vrt("deblur_pa2", dtype)
    network.compute_backend = backend
    expected = json.loads((FIXTURES / "deblur_pa2.grad_norms.json").read_text())
    y = network(torch.from_numpy(arrays["x"]).to(dtype))
    weights = np.random.RandomState(7).standard_normal(tuple(y.shape)).astype(np.float32)
    (y * torch.from_numpy(weights).to(dtype)).sum().backward()
    norms = {key: p.grad.double().norm().item() for key, p in network.named_parameters() if p.grad is not None}
    assert norms.keys() == expected.keys()
    least = 1e-4 * max(expected.values())
    wrong = {k: (norms[k], v) for k, v in expected.items() if v > least and abs(norms[k] / v - 1) > tolerance}
    assert not wrong


@pytest.mark.parametrize("name", NAMES)
def test_keys_of_the_fixtures(name: str) -> None:
    network, _ = fixture_vrt(name, torch.float32)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == key_list(name)


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [("official_006_gopro", OFFICIAL_006, 1526), ("official_001_reds_sr", OFFICIAL_001, 1666)],
)
def test_keys_of_published_checkpoints(name: str, arguments: dict, count: int) -> None:
    with torch.device("meta"):
        own = {key: list(value.shape) for key, value in VRT(**arguments).state_dict().items()}
    assert own == key_list(name)
    assert list(own) == list(key_list(name))
    assert len(own) == count


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        (OFFICIAL_001, 30_676_435),
        ({**OFFICIAL_001, "img_size": [16, 64, 64], "window_size": [8, 8, 8], "pa_frames": 6, "deformable_groups": 24},
         35_134_783),
        ({**OFFICIAL_001, "img_size": [8, 64, 64], "window_size": [8, 8, 8], "pa_frames": 4, "deformable_groups": 16},
         32_577_991),
        (OFFICIAL_006, 18_320_007),
        ({**OFFICIAL_006, "nonblind_denoising": True}, 18_320_871),
        ({**OFFICIAL_006, "in_chans": 4}, 18_327_783),
        ({**OFFICIAL_006, "img_size": [4, 192, 192], "window_size": [4, 8, 8], "pa_frames": 0, "indep_reconsts": []},
         9_943_387),
    ],
    ids=["001", "002", "003", "006", "008", "006+1", "009"],
)  # fmt: skip
def test_parameter_counts(arguments: dict, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in VRT(**arguments).parameters()) == parameters
