"""scripts/export.py: an ONNX file that computes what PyTorch does, and weights that load again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.network_guided import Guided
from models.select_network import load_weights
from scripts.export import main, write_onnx, write_weights
from utils.utils_file import check_sha256


def small() -> Guided:
    torch.manual_seed(0)
    network = Guided(spike_bins=12, widths=2, start=1, channels=4, blocks=[1, 1, 1]).eval()
    torch.nn.init.normal_(network.conv_last.weight, std=0.1)
    return network


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_onnx_computes_the_same_at_other_sizes(ratio: int, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    network, path = small(), tmp_path / "network.onnx"
    write_onnx(network, 12, ratio, path)
    frames, spikes = torch.rand(2, 3, 9 * ratio, 13 * ratio), torch.rand(2, 12, 9, 13)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (restored,) = session.run(None, {"frames": frames.numpy(), "spikes": spikes.numpy()})
    with torch.inference_mode():
        assert np.abs(restored - network.restore(frames, spikes).numpy()).max() < 1e-4
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]


def test_weights_in_half_precision_load_again(tmp_path: Path) -> None:
    network, again, path = small(), small(), tmp_path / "weights.pth"
    torch.nn.init.zeros_(again.conv_last.weight)
    write_weights(network, path)
    check_sha256(path)
    load_weights(again, path)
    for ours, theirs in zip(network.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1 / 2048, atol=1e-7)


def test_other_endings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--task", "guided", "network.trt"]) == 2
    assert "ends in .onnx or .pth" in capsys.readouterr().err
