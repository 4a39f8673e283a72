"""Data sets as they are downloaded, tiny: what the preparations turn into what the recipes read."""

from pathlib import Path

import cv2
import numpy as np

from tests.data.trees import GoproTree, make_gopro_tree

CLIPS = {"train": ["GOPR0001_03_00", "GOPR0002_03_00"], "test": ["GOPR0003_03_00"]}


def raw_gopro(root: Path, frames: int = 4, size: tuple[int, int] = (32, 48)) -> tuple[Path, Path]:
    """GOPRO_Large/{train,test}/<clip>/{sharp,blur,blur_gamma} with frames from 000047 on, and its spike sequences.

    Each spike file has 24 frames, so that by the clips' names 3 sharp frames were averaged.

    Returns:
        the folders of GoPro and of the spikes.
    """
    gopro, spikes = root / "GOPRO_Large", root / "GOPRO_Large_spike_seq"
    for phase, names in CLIPS.items():
        plain = {"frames": frames, "size": size, "sync": False, "seed": len(names)}
        created = make_gopro_tree(root / "made", phase=phase, clips=len(names), center=8, **plain)
        for old, new in zip(created.clips, names, strict=True):
            for kind, side in (("sharp", created.gt), ("blur", created.lq), ("blur_gamma", created.lq)):
                _renumber(created, side / old, gopro / phase / new / kind, "png")
            _renumber(created, created.spike / old / "spike", spikes / phase / new / "spike", "dat")
    return gopro, spikes


def _renumber(tree: GoproTree, source: Path, target: Path, suffix: str) -> None:
    target.mkdir(parents=True)
    for number, frame in enumerate(tree.frames, 47):
        (target / f"{number:06d}.{suffix}").write_bytes((source / f"{frame}.{suffix}").read_bytes())


def write_pictures(folder: Path, names: list[str], size: tuple[int, int] = (24, 32), seed: int = 0) -> None:
    """Smooth random pictures, one for each name, moving to the right by a pixel a frame."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).random((size[0], size[1] + len(names), 3), np.float32)
    scene = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    for shift, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), scene[:, shift : shift + size[1]])
