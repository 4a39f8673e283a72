"""The table of reconstructions of any data: its rows, the best of them, pictures, and mistakes."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.spike.simulation.simulate import integrate_and_fire
from models.network_spike_refine import SpikeRefine
from scripts.evaluate_reconstruction import FREE, main
from utils.spike_loader import write_spikes

SIZE = (16, 24)


@pytest.fixture
def base_root(tmp_path: Path) -> Path:
    """Two still scenes of 121 frames in Spike-Zoo's layout; the second picture is in colour and twice the size."""
    rng = np.random.default_rng(0)
    (tmp_path / "gt").mkdir()
    for name, factor in (("a", 1), ("b", 2)):
        gray = cv2.resize(rng.integers(60, 200, (4, 6), np.uint8), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        light = np.repeat(gray[None] / 255, 121, axis=0)
        write_spikes(tmp_path / "spike" / f"{name}.dat", integrate_and_fire(light, 2.0, rng))
        picture = cv2.resize(gray, (factor * SIZE[1], factor * SIZE[0]), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(tmp_path / "gt" / f"{name}.png"), picture if factor == 1 else cv2.merge([picture] * 3))
    (tmp_path / "config.yaml").write_text(f"spike_h: {SIZE[0]}\nspike_w: {SIZE[1]}\n")
    return tmp_path


def test_table_has_every_method_and_stream(base_root: Path, capsys: pytest.CaptureFixture[str]):
    torch.manual_seed(0)
    small = {"in_chans": 61, "channels": 4, "blocks": [0, 0, 0], "flow_channels": 4, "flow_blocks": [0, 0, 0]}
    recipe = {"task": "refine", "model": "spikling", "netG": {"net_type": "spike_refine", **small}}
    (base_root / "opt.json").write_text(json.dumps(recipe))
    torch.save(SpikeRefine(**small).state_dict(), base_root / "net.pth")
    command = ["--data", str(base_root / "spike"), "--threshold", "2", "--json", str(base_root / "scores.json")]
    command += ["--network", "start", str(base_root / "opt.json"), str(base_root / "net.pth")]
    assert main([*command, "--save", str(base_root / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    (header,) = [line for line in lines if line.startswith("| method")]
    assert header == "| method | a | b | mean |"
    rows = json.loads((base_root / "scores.json").read_text())
    psnr = {row["method"]: row["psnr"] for row in rows}
    assert list(psnr) == [*FREE, "best training-free", "start"]
    for name in ("a", "b"):
        # Nothing moves: a wide Gaussian is nearly exact, a short window is not.
        assert psnr["Gaussian 8"][name] > 40 > psnr["window 21"][name]
        assert psnr["start"][name] > 30
        assert psnr["best training-free"][name] == max(psnr[method][name] for method in FREE)
        assert (base_root / "out" / f"{name}.png").is_file()
    assert lines[-1].startswith(f"| start | {psnr['start']['a']:.2f} / ")


def test_mistakes_are_told(base_root: Path, capsys: pytest.CaptureFixture[str]):
    data = ["--data", str(base_root / "spike"), "--threshold", "2"]
    assert main([*data, "--center", "121"]) == 2
    assert "has spike frames [0, 121)" in capsys.readouterr().err
    assert main(["--data", str(base_root / "none"), "--threshold", "2"]) == 2
    assert "no such file" in capsys.readouterr().err
    cv2.imwrite(str(base_root / "gt" / "b.png"), np.zeros((20, 24), np.uint8))
    assert main(data) == 2
    assert "aspect ratio" in capsys.readouterr().err
    (base_root / "gt" / "a.png").unlink()
    assert main(data) == 2
    assert "there is no sharp picture a.png" in capsys.readouterr().err
