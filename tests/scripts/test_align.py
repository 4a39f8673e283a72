"""`scripts.align` on a simulated rig: what it finds, writes and says, and that data sets take it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.dataset_video_rgbspike import VideoRecurrentTestDatasetRGBSpike
from data.spike.alignment.align import align
from data.spike.alignment.result import Alignment
from data.spike.simulation.canvas import Canvases
from data.spike.simulation.rig import Rig, RigSettings, random_rig
from data.spike.sync import SyncTable
from scripts.align import main
from utils.spike_loader import SpikeStream, find_threshold
from utils.spike_writer import write_spikes
from utils.utils_image import imread_rgb

CALM = RigSettings(
    sizes=((64, 80),),
    ratios=(1,),
    number=(8, 8),
    offset=0.4,
    threshold=(1.5, 2.5),
    noise=0.3,
    linear=0.0,
    travel=(3, 5),
)


@pytest.fixture(scope="module")
def rig() -> Rig:
    return random_rig(np.random.default_rng(8), Canvases(256, 0.6), CALM)


@pytest.fixture
def recording(rig, tmp_path):
    """A folder with frames/ and clip.dat."""
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(rig.frames):
        cv2.imwrite(str(tmp_path / "frames" / f"{number:03d}.png"), frame[..., ::-1])
    write_spikes(tmp_path / "spikes" / "clip.dat", rig.spikes)
    return tmp_path


def test_what_it_finds_is_true_and_what_it_writes_is_read(rig, recording, capsys):
    stream = recording / "spikes" / "clip.dat"
    sizes = ["--spike_h", str(rig.spikes.shape[1]), "--spike_w", str(rig.spikes.shape[2])]
    assert main([str(recording / "frames"), str(stream), *sizes]) == 0
    told = capsys.readouterr().out
    assert "guessed" not in told and "± " in told

    truth, alignment = rig.truth, Alignment.load(stream.parent / "align.json")
    assert alignment.threshold == pytest.approx(truth.threshold, rel=0.05)
    assert find_threshold(stream.parent) == alignment.threshold
    corners = np.array([[0, 0, 1], [79, 0, 1], [0, 63, 1], [79, 63, 1.0]]).T
    found, expected = (matrix @ corners for matrix in (alignment.matrix, truth.homography))
    assert np.abs(found[:2] / found[2] - expected[:2] / expected[2]).max() < 1
    sync = SyncTable.load(stream.parent / "sync.json")
    for name, window in sync.windows.items():
        center = truth.begin + int(name) * truth.period + truth.exposure / 2
        assert abs((window.begin + window.end) / 2 - center) < 1.5

    covered = stream.parent / "frames" if (stream.parent / "frames").exists() else recording / "frames"
    dataset = VideoRecurrentTestDatasetRGBSpike(
        dataroot_lq=str(covered),
        dataroot_gt=None,
        dataroot_spike=str(stream),
        spike={"representation": "count"},
        input_pack_mode="concat",
    )
    sample = dataset[0]["L"].numpy()  # (T,4,H,W)
    gray = sample[:, :3].transpose(0, 2, 3, 1) @ np.array([0.299, 0.587, 0.114])
    inner = np.s_[:, 12:-12, 12:-12]
    assert np.corrcoef(gray[inner].ravel(), sample[:, 3][inner].ravel())[0, 1] > 0.9
    assert "align.json" in dataset.assumptions()[0]
    assert (stream.parent / "align.html").read_text(encoding="utf-8").count("data:image/jpeg") > 2

    assert main([str(recording / "frames"), str(stream)]) == 2
    assert "--force" in capsys.readouterr().err


def test_a_static_scene_has_a_place_but_no_clock(rig, recording, capsys):
    for number in range(len(rig.frames)):
        cv2.imwrite(str(recording / "frames" / f"{number:03d}.png"), rig.frames[0][..., ::-1])
    rng = np.random.default_rng(0)
    gray = cv2.cvtColor(rig.frames[0], cv2.COLOR_RGB2GRAY) / 255
    charge = np.cumsum(np.repeat(gray[None] / 2, 400, 0), 0) + rng.random(gray.shape)
    still = np.diff(np.floor(charge), axis=0, prepend=0).clip(0, 1).astype(np.uint8)
    write_spikes(recording / "spikes" / "clip.dat", still)
    sizes = ["--spike_h", "64", "--spike_w", "80"]
    assert main([str(recording / "frames"), str(recording / "spikes" / "clip.dat"), *sizes]) == 1
    told = capsys.readouterr().out
    assert "time        cannot be told" in told and "moves" in told
    assert not (recording / "spikes" / "sync.json").exists()
    assert Alignment.load(recording / "spikes" / "align.json").threshold == pytest.approx(2, rel=0.05)


def test_exchanged_bits_are_named_with_the_remedy(rig, recording, capsys):
    write_spikes(recording / "spikes" / "clip.dat", 1 - rig.spikes)
    sizes = ["--spike_h", str(rig.spikes.shape[1]), "--spike_w", str(rig.spikes.shape[2])]
    assert main([str(recording / "frames"), str(recording / "spikes" / "clip.dat"), *sizes]) == 2
    assert "--invert" in capsys.readouterr().err


REAL = Path(__file__).parents[3] / "shared/data"


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/data")
@pytest.mark.parametrize(
    ("name", "size", "instant", "threshold"),
    [
        ("gopro_spike_sample/000226", (360, 640), 40, 2.0),
        ("reds_base/203_part2", (250, 400), 150, 1 / 0.6),
        ("reds_base/203_part3", (250, 400), 150, 1 / 0.6),
    ],
)
def test_real_streams_against_their_sharp_pictures(name, size, instant, threshold):
    found = align(lambda number: imread_rgb(REAL / f"{name}.png"), 1, SpikeStream(REAL / f"{name}.dat", *size))
    assert found.time.told and found.shared_lens
    assert abs(found.model.center - instant) < 1
    assert found.brightness.threshold == pytest.approx(threshold, rel=0.01)


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/data")
def test_a_single_frame_does_not_tell_time_where_place_is_free():
    path = REAL / "reds_base/200_part1"
    found = align(lambda number: imread_rgb(f"{path}.png"), 1, SpikeStream(f"{path}.dat", 250, 400))
    assert not found.time.told and "time from place" in found.time.why
