"""models/pretrained.py and the weights in the box: a golden crop, arrays of all kinds, and no byte changed.

After new weights: `PYTHONPATH=. python tests/models/test_pretrained.py` restores the golden crop again.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.spike.reconstruction.reconstruct import gaussian
from data.spike.simulation.canvas import Canvases
from data.spike.simulation.exposures import LUMA, Camera, shoot
from data.spike.simulation.layered_scene import LayeredScene
from data.spike.simulation.noise import SensorNoise
from data.spike.simulation.simulate import to_uint8
from models.pretrained import SpikeRestorer, load
from utils.user_error import UserError
from utils.utils_file import sha256_of

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "fixtures" / "guided" / "golden.npz"
SPIKES = GOLDEN.with_name("spikes.npz")
"""Of a generated scene: `spikes` (S,h,w), `sharp` and `reconstructed` (h,w) uint8 at `instant`, and `threshold`."""
WEIGHTS = sorted((ROOT / "model_zoo" / "svrt").glob("*.pth"))


@pytest.fixture(scope="module")
def restorer() -> SpikeRestorer:
    return load("guided")


@pytest.fixture
def golden() -> dict[str, np.ndarray]:
    """A generated scene: `blurred`, `sharp` and `restored` (H,W,3) uint8, `spikes` (S,h,w), `window`."""
    return dict(np.load(GOLDEN))


def restore(restorer: SpikeRestorer, golden: dict[str, np.ndarray], frames: Any) -> Any:
    begin, end, instant, threshold = golden["window"].tolist()
    where = {"exposures": [(int(begin), int(end))], "instants": [int(instant)]}
    return restorer(frames, golden["spikes"], threshold=threshold, **where)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return -10 * np.log10(np.mean((first.astype(float) - second) ** 2) / 255**2)


def test_golden_crop(restorer: SpikeRestorer, golden: dict[str, np.ndarray]) -> None:
    restored = restore(restorer, golden, golden["blurred"])
    assert restored.shape == golden["blurred"].shape and restored.dtype == np.uint8
    assert np.abs(restored.astype(int) - golden["restored"]).max() <= 1
    assert psnr(restored, golden["sharp"]) > psnr(golden["blurred"], golden["sharp"]) + 1


def test_times_are_instants_of_the_exposure(restorer: SpikeRestorer, golden: dict[str, np.ndarray]) -> None:
    begin, end, _, threshold = golden["window"].tolist()
    exposure, shared = (int(begin), int(end)), {"threshold": threshold}
    frames, spikes = golden["blurred"][:32, :32], golden["spikes"][:, :16, :16]
    film = restorer(frames, spikes, exposures=[exposure], times=[0, 1], **shared)
    assert film.shape == (2, *frames.shape)
    for picture, instant in zip(film, (exposure[0], exposure[1] - 1), strict=True):
        alone = restorer(frames, spikes, exposures=[exposure], instants=[instant], **shared)
        assert np.array_equal(picture, alone)
    tensors = torch.from_numpy(frames).permute(2, 0, 1)
    as_tensor = restorer(tensors, spikes, exposures=[exposure], times=[0, 1], **shared)
    assert np.array_equal(as_tensor.permute(0, 2, 3, 1).numpy(), film)
    with pytest.raises(UserError, match="times and instants"):
        restorer(frames, spikes, exposures=[exposure], times=[0], instants=[1])


def test_all_kinds_of_arrays_give_the_same(restorer: SpikeRestorer, golden: dict[str, np.ndarray]) -> None:
    blurred, restored = golden["blurred"], golden["restored"].astype(float) / 255
    as_float = restore(restorer, golden, blurred.astype(np.float32) / 255)
    as_16_bit = restore(restorer, golden, blurred.astype(np.uint16) * 257)
    as_tensor = restore(restorer, golden, torch.from_numpy(blurred).permute(2, 0, 1)[None].float() / 255)
    assert as_float.dtype == np.float32 and as_16_bit.dtype == np.uint16 and as_tensor.shape[:2] == (1, 3)
    for result in (as_float, as_16_bit / 65535, as_tensor[0].permute(1, 2, 0).numpy()):
        assert np.abs(result - restored).max() < 2 / 255


def test_exposures_that_are_not_given_share_the_stream(
    restorer: SpikeRestorer, golden: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.stack([golden["blurred"], golden["blurred"]])
    length = len(golden["spikes"])
    given = restorer(frames, golden["spikes"], exposures=[(0, length // 2), (length // 2, length)])
    assert np.array_equal(restorer(frames, golden["spikes"]), given)


@pytest.mark.parametrize(
    ("frames", "spikes", "message"),
    [
        (np.zeros((8, 8), np.uint8), np.ones((9, 4, 4)), "frames"),
        (np.zeros((8, 8, 4), np.uint8), np.ones((9, 4, 4)), "4 colours"),
        (np.zeros((8, 8, 3), np.int64), np.ones((9, 4, 4)), "int64"),
        (np.zeros((8, 8, 3), np.uint8), np.full((9, 4, 4), 2), "0 and 1"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((9, 4, 4)), "no|none"),
        (np.zeros((9, 8, 8, 3), np.uint8), np.ones((3, 4, 4)), "3 spike frames"),
    ],
)
def test_arrays_that_can_not_be_used(restorer: SpikeRestorer, frames: Any, spikes: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        restorer(frames, spikes)


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.name)
def test_no_byte_of_the_weights_has_changed(path: Path) -> None:
    """The README beside them and the file for `sha256sum -c` both have the digest."""
    digest = sha256_of(path)
    assert path.stat().st_size <= 8e6
    assert (path.parent / f"{path.name}.sha256").read_text().split() == [digest, path.name]
    assert digest in re.findall(r"[0-9a-f]{64}", (path.parent / "README.md").read_text())


def test_changed_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model_zoo" / "svrt"
    folder.mkdir(parents=True)
    for file in (ROOT / "model_zoo" / "svrt").glob("guided_s.pth*"):
        (folder / file.name).write_bytes(file.read_bytes())
    weights = bytearray((folder / "guided_s.pth").read_bytes())
    weights[len(weights) // 2] ^= 1
    (folder / "guided_s.pth").write_bytes(weights)
    monkeypatch.setattr("utils.options.tester_flags.ROOT", tmp_path)
    with pytest.raises(UserError, match="SHA-256"):
        load("guided")


def test_models_whose_weights_do_not_come_with_the_code() -> None:
    with pytest.raises(UserError, match="download"):
        load("006_VRT_videodeblurring_GoPro")
    with pytest.raises(UserError, match="Choices"):
        load("unguided")


def test_golden_reconstruction() -> None:
    golden = dict(np.load(SPIKES))
    known = {"threshold": float(golden["threshold"]), "instants": [int(golden["instant"])]}
    reconstruct = load("spike_refine")
    (picture,) = reconstruct(golden["spikes"], **known)
    assert picture.dtype == np.uint8 and np.abs(picture.astype(int) - golden["reconstructed"]).max() <= 1
    widths = [
        to_uint8(gaussian(golden["spikes"], known["instants"][0], known["threshold"], sigma=float(s)))
        for s in range(2, 12)
    ]
    assert psnr(picture, golden["sharp"]) > max(psnr(width, golden["sharp"]) for width in widths) + 1
    (same,) = reconstruct(torch.from_numpy(golden["spikes"]), **known)
    assert isinstance(same, torch.Tensor) and np.array_equal(same.numpy(), picture)


def test_reconstruction_needs_nothing_but_spikes() -> None:
    spikes = np.load(SPIKES)["spikes"]
    reconstruct = load("spike_refine")
    (picture,) = reconstruct(spikes)
    assert picture.shape == spikes.shape[1:] and 0.8 * 255 < np.percentile(picture, 99) <= 255
    assert len(reconstruct(spikes, instants=[0, len(spikes) - 1])) == 2
    with pytest.raises(UserError, match="outside"):
        reconstruct(spikes, instants=[len(spikes)])
    with pytest.raises(UserError, match="0 and 1"):
        reconstruct(2 * spikes)


def test_torch_hub() -> None:
    restorer = torch.hub.load(str(ROOT), "guided", source="local")
    assert type(restorer).__name__ == "SpikeRestorer" and restorer.network.training is False


def shot(seed: int, camera: Camera, speed: float, instant: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A generated scene: the blurred frame, the sharp one at the instant (H,W,3) uint8, and the spikes (S,h,w)."""
    rng = np.random.default_rng(seed)
    scene = LayeredScene(Canvases(128, 0.0), 48, camera.frames, speed, rng)
    blurred, sharp, spikes = shoot(scene.render, scene.travel, np.array([instant]), camera, rng)
    return blurred, sharp[0], spikes


def guided_scene() -> dict[str, np.ndarray]:
    blurred, sharp, spikes = shot(7, Camera(56, 0, 49, 2, 2.0, False, SensorNoise(), 0.0), 0.25, 24)
    return {"blurred": blurred, "sharp": sharp, "spikes": spikes, "window": np.array([0, 49, 24, 2.0])}


def spikes_scene() -> dict[str, np.ndarray]:
    _, sharp, spikes = shot(11, Camera(100, 0, 100, 1, 2.0, False, SensorNoise(), 0.0), 0.15, 45)
    gray = np.rint(sharp @ LUMA).astype(np.uint8)
    return {"sharp": gray, "spikes": spikes, "instant": np.array(45), "threshold": np.array(2.0)}


def write_golden() -> None:
    """Restores both golden scenes with the present weights; generates a scene whose file is missing."""
    guided = dict(np.load(GOLDEN)) if GOLDEN.is_file() else guided_scene()
    guided["restored"] = restore(load("guided"), guided, guided["blurred"])
    spikes = dict(np.load(SPIKES)) if SPIKES.is_file() else spikes_scene()
    known = {"threshold": float(spikes["threshold"]), "instants": [int(spikes["instant"])]}
    (spikes["reconstructed"],) = load("spike_refine")(spikes["spikes"], **known)
    for path, golden, names in ((GOLDEN, guided, ("blurred", "restored")), (SPIKES, spikes, ("reconstructed",))):
        np.savez_compressed(path, **golden)
        for name in names:
            print(name, round(psnr(golden[name], golden["sharp"]), 2), "dB")


if __name__ == "__main__":
    write_golden()
