"""align.json and what it does to spike channels: exact warps, boxes equal to parts of the whole, faults named."""

import json

import cv2
import numpy as np
import pytest

from data.frame_io import Box
from data.spike.alignment.result import Alignment
from utils.user_error import UserError

TILTED = (0.52, 0.01, -1.5, -0.012, 0.49, 2.0, 1e-4, -2e-4, 1.0)


def test_a_file_is_read_as_it_was_written(tmp_path):
    alignment = Alignment((48, 64), (24, 32), TILTED, 2.5, {"time": {"told": True}})
    alignment.save(tmp_path / "align.json")
    assert Alignment.load(tmp_path / "align.json") == alignment


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("homography", [1, 2], "9 numbers"),
        ("homography", [0] * 9, "inverted"),
        ("frame_size", [48, 0], "2 numbers"),
        ("threshold", -1, "above 0"),
    ],
)
def test_a_fault_names_the_entry(tmp_path, key, value, told):
    path = tmp_path / "align.json"
    Alignment((48, 64), (24, 32), TILTED).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError, match=rf"align\.json: {key}.*{told}"):
        Alignment.load(path)


def test_the_plain_scale_onto_its_own_grid_changes_nothing():
    plain = (0.5, 0.0, -0.25, 0.0, 0.5, -0.25, 0.0, 0.0, 1.0)
    alignment = Alignment((48, 64), (24, 32), plain)
    channels = np.random.default_rng(0).random((3, 24, 32), np.float32)
    warp = alignment.warp(alignment.ratio)
    full = Box(0, 0, 24, 32)
    assert alignment.ratio == 2 and warp.size == (24, 32) and warp.covered() == 1
    np.testing.assert_array_equal(warp.sample(channels, warp.source(full), full), channels)


@pytest.mark.parametrize("ratio", [1, 2])
def test_a_box_is_that_part_of_the_whole(ratio):
    warp = Alignment((48, 64), (24, 32), TILTED).warp(ratio)
    channels = np.random.default_rng(0).random((3, 24, 32), np.float32)
    full = Box(0, 0, *warp.size)
    expected = warp.sample(channels, Box(0, 0, 24, 32), full)
    for box in (Box(3, 5, 10, 12), Box(0, 0, 7, 9), Box(warp.size[0] - 4, warp.size[1] - 6, 4, 6)):
        source = warp.source(box)
        part = channels[:, source.top : source.top + source.height, source.left : source.left + source.width]
        np.testing.assert_array_equal(
            warp.sample(part, source, box), box.of(expected.transpose(1, 2, 0)).transpose(2, 0, 1)
        )


def test_the_warp_is_opencvs():
    alignment = Alignment((48, 64), (24, 32), TILTED)
    channels = cv2.GaussianBlur(np.random.default_rng(0).random((24, 32), np.float32), (0, 0), 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpPerspective(channels, alignment.matrix, (64, 48), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    ours = alignment.warp(1).sample(channels[None], Box(0, 0, 24, 32), Box(0, 0, 48, 64))[0]
    assert np.abs(ours - expected)[2:-2, 2:-2].max() < 0.01
