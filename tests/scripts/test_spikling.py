"""scripts/spikling.py: the lines of spikling's README, with the import changed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from models.network_spikling import generate
from scripts import spikling
from utils.spike_loader import write_spikes

README = """
import os
from scripts.spikling import load_spike_raw

seq = load_spike_raw(os.path.join('raw', 'operacut.dat'))

from PIL import Image
from scripts.spikling import interval_method, window_method

MIDDLE_FRAME = len(seq)//2
result = interval_method(seq, MIDDLE_FRAME)
img = Image.fromarray(result)
img.save(os.path.join('result', 'operacut-intv.png'))

START_FRAME = len(seq)//2
WINDOW_SIZE = 32
result = window_method(seq, START_FRAME, WINDOW_SIZE)
img = Image.fromarray(result)
img.save(os.path.join('result', 'operacut-win.png'))

from scripts.spikling import (
    transform_raw,
    transform_interval,
    transfrom_window,
    transform_window,
)

STRIDE = 2
seq_s = seq[:36]
transform_raw(seq_s, STRIDE,
              os.path.join('result', 'operacut-raw.avi'))
transform_interval(seq_s, STRIDE,
                   os.path.join('result', 'operacut-intv.avi'))
transform_window(seq_s, WINDOW_SIZE, STRIDE,
                 os.path.join('result', 'operacut-win.avi'))

import torch
from scripts.spikling import Generator

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
gen = Generator()
gen.load(os.path.join('checkpoint', 'spikling-0027.pth'))

from scripts.spikling import generate

result = generate(gen, seq, START_FRAME)
img = Image.fromarray(result)
img.save(os.path.join('result', 'operacut-gen.png'))

from scripts.spikling import transform_gen

transform_gen(gen, seq_s, STRIDE,
              os.path.join('result', 'operacut-gen.avi'))
transform_gen(gen, seq_s, os.path.join('result', 'operacut-swapped.avi'), STRIDE)

from scripts.spikling import video_to_spike

WINDOW_SIZE = 32
FRAME_SIZE = (64, 48)

my_videos = os.listdir('video')
out_pattern = 'sp{:04d}.npz'

for i in my_videos:
    if i.lower().endswith('.mp4'):
        out_name = os.path.join('data', out_pattern)
        video_to_spike(os.path.join('video', i), FRAME_SIZE, WINDOW_SIZE, out_name)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the lines expect to be there."""
    monkeypatch.chdir(tmp_path)
    for name in ("raw", "result", "checkpoint", "video", "data"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    write_spikes("raw/operacut.dat", (rng.random((80, 250, 400)) < 0.3).astype(np.uint8))
    torch.manual_seed(0)
    spikling.Generator().save("checkpoint/spikling-0027.pth")
    for name in ("a.mp4", "b.MP4"):
        writer = cv2.VideoWriter(f"video/{name}", cv2.VideoWriter.fourcc(*"mp4v"), 30, (96, 64))
        for _ in range(70):
            writer.write(rng.integers(0, 255, (64, 96, 3), np.uint8))
        writer.release()
    return tmp_path


def test_readme_lines(folder: Path) -> None:
    names: dict = {}
    exec(compile(README, "spikling README", "exec"), names)
    seq = spikling.load_spike_raw("raw/operacut.dat")
    picture = np.array(Image.open("result/operacut-intv.png"))
    np.testing.assert_array_equal(picture, spikling.interval_method(seq, 40))
    expected = (seq[40:72].mean(axis=0) * 255).astype(np.uint8)
    np.testing.assert_array_equal(np.array(Image.open("result/operacut-win.png")), expected)
    np.testing.assert_array_equal(np.array(Image.open("result/operacut-gen.png")), generate(names["gen"], seq, 40))
    for name in ("raw", "intv", "win", "gen", "swapped"):
        capture = cv2.VideoCapture(f"result/operacut-{name}.avi")
        assert capture.get(cv2.CAP_PROP_FPS) == 30
        count = 0
        while capture.read()[0]:
            count += 1
        assert count == (36 - 32) // 2, name
    pairs = sorted(path.name for path in (folder / "data").iterdir())
    assert pairs == ["sp0001.npz", "sp0002.npz", "sp0003.npz", "sp0004.npz"]
    spikes, tag = spikling.load_spike_numpy(folder / "data" / "sp0004.npz")
    assert spikes.shape == (32, 48, 64) and tag.shape == (48, 64)


def test_pictures_are_at_most_two_levels_from_spiklings() -> None:
    class Network(torch.nn.Linear):
        in_chans = 1

        def forward(self, L: torch.Tensor) -> torch.Tensor:
            return (outputs + 1) / 2  # as SemiUNet, whose last layer gives `outputs`

    outputs = torch.linspace(-1, 1, 4096).view(1, 1, 1, 64, 64)
    ours = generate(Network(1, 1), np.zeros((1, 64, 64), np.uint8), 0).astype(int)
    difference = ours - (outputs * 128 + 127).clamp(0, 255).byte().numpy()[0, 0, 0]
    assert set(np.unique(difference)) == {0, 1, 2}


def test_pictures_of_a_video_are_the_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    seq = np.random.default_rng(0).integers(0, 2, (50, 6, 8), np.uint8)
    written: list[list[np.ndarray]] = []
    monkeypatch.setattr(spikling, "write_video", lambda path, pictures: written.append(list(pictures)))
    spikling.transform_raw(seq, 3, "a.avi")
    spikling.transform_interval(seq, 3, "a.avi")
    spikling.transform_window(seq, 40, 3, "a.avi")
    starts = range(0, 18, 3)
    np.testing.assert_array_equal(written[0], [255 * seq[start] for start in starts])
    np.testing.assert_array_equal(written[1], [spikling.interval_method(seq, start) for start in starts])
    means = [(seq[start : start + 40].mean(axis=0) * 255).astype(np.uint8) for start in starts]
    np.testing.assert_array_equal(written[2], means)


def test_streams_without_a_picture_are_refused(tmp_path: Path) -> None:
    for length, stride in ((33, 2), (20, 1), (50, 0)):
        with pytest.raises(ValueError, match="give no picture"):
            spikling.transform_raw(np.zeros((length, 4, 4), np.uint8), stride, tmp_path / "a.avi")
    assert not list(tmp_path.iterdir())
