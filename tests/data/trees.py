"""Small data sets on disk in the prepared GoPro layout, for tests of anything that reads data.

    tree = make_gopro_tree(tmp_path, clips=2, frames=7, size=(48, 64))
    dataset = VideoRecurrentTrainDatasetRGBSpike(**tree.roots, spike={"representation": "tfp", "bins": 4}, gt_size=32)

Each clip is a smooth texture in uniform motion. A sharp frame is the texture at the exposure's middle, the blurred
frame the mean over the exposure, and the spikes are those of integrate-and-fire pixels (threshold 2, subtractive
reset) that see the gray texture at the spike resolution: the spikes hold what the blur lost. Nothing here uses the
code under test.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

THRESHOLD = 2.0
GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue, BT.601


@dataclass(frozen=True)
class GoproTree:
    """What was made.

    Attributes:
        gt, lq, spike: the data roots: <clip>/<frame>.png, and <clip>/spike/<frame>.dat with <clip>/sync.json.
        clips, frames: their names; frames are those of every clip.
        meta_info: KAIR's `clip n_frames (h,w,c) first_frame` lines.
    """

    gt: Path
    lq: Path
    spike: Path
    clips: list[str]
    frames: list[str]
    meta_info: Path

    @property
    def rgb_roots(self) -> dict[str, str]:
        """`dataroot_gt` and `dataroot_lq`, as options."""
        return {"dataroot_gt": str(self.gt), "dataroot_lq": str(self.lq)}

    @property
    def roots(self) -> dict[str, str]:
        """The three data roots, as options."""
        return {**self.rgb_roots, "dataroot_spike": str(self.spike)}


def make_gopro_tree(
    root: Path,
    *,
    phase: str = "train",
    clips: int = 2,
    frames: int = 7,
    size: tuple[int, int] = (48, 64),
    spike_ratio: int = 2,
    spikes_per_frame: int = 24,
    center: int | None = None,
    scale: int = 1,
    sync: bool = True,
    seed: int = 0,
) -> GoproTree:
    """Writes <root>/GOPRO_Large/{phase}_GT(_blurred) and <root>/GOPRO_Large_spike_seq/{phase}.

    Args:
        root: where; two phases may share it.
        phase: "train" or "test".
        clips, frames: how many, and how many in each.
        size: height and width of the blurred frames; sharp ones are `scale` times as large.
        spike_ratio: blurred frames are this many times as large as the spike picture.
        spikes_per_frame: spike frames in each `.dat`, which is one exposure.
        center: spike frame at which the sharp frame is taken; None: the middle one.
        sync: write sync.json.
        seed: of the textures and motions.
    """
    rng = np.random.default_rng(seed)
    gt, lq = root / f"GOPRO_Large/{phase}_GT", root / f"GOPRO_Large/{phase}_GT_blurred"
    spike_root = root / "GOPRO_Large_spike_seq"
    names, clip_names = [f"{k:06d}" for k in range(frames)], [f"{phase}_clip_{k:02d}" for k in range(clips)]
    height, width = size
    spike_h, spike_w = height // spike_ratio, width // spike_ratio
    center = spikes_per_frame // 2 if center is None else center
    spike_root.mkdir(parents=True, exist_ok=True)
    (spike_root / "config.yaml").write_text(f"spike_h: {spike_h}\nspike_w: {spike_w}\nis_labeled: false\n")
    for clip in clip_names:
        for folder in (gt / clip, lq / clip, spike_root / phase / clip / "spike"):
            folder.mkdir(parents=True)
        texture, velocity = _texture(rng, 2 * height, 2 * width), rng.uniform(-3, 3, 2)
        charge = rng.uniform(0, THRESHOLD, (spike_h, spike_w))
        for k, name in enumerate(names):
            times = k + np.arange(spikes_per_frame) / spikes_per_frame
            views = [_view(texture, velocity * time, height, width) for time in times]
            sharp = cv2.resize(views[center], (width * scale, height * scale))
            _write_png(gt / clip / f"{name}.png", sharp)
            _write_png(lq / clip / f"{name}.png", np.mean(views, axis=0))
            spikes, charge = _integrate_and_fire(views, charge, spike_h, spike_w)
            write_dat(spike_root / phase / clip / "spike" / f"{name}.dat", spikes)
        if sync:
            entry = {"spike_begin": 0, "spike_end": spikes_per_frame, "spike_center": center}
            content = {"seq_name": clip, "frames": [{"rgb": name, **entry} for name in names]}
            (spike_root / phase / clip / "sync.json").write_text(json.dumps(content))
    meta_info = root / f"meta_info_{phase}.txt"
    meta_info.write_text("".join(f"{clip} {frames} ({height * scale},{width * scale},3) 0\n" for clip in clip_names))
    return GoproTree(gt, lq, spike_root / phase, clip_names, names, meta_info)


def write_dat(path: Path, spikes: np.ndarray) -> None:
    """Writes (T, h, w) bits as a `.dat`: rows bottom-up, least significant bit first, whole bytes per frame."""
    rows = spikes[:, ::-1].reshape(len(spikes), -1)
    path.write_bytes(np.packbits(rows, axis=1, bitorder="little").tobytes())


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A smooth colour picture, (height, width, 3) float32 in [0.1, 0.9], larger than the view."""
    coarse = rng.random((height // 6, width // 6, 3), dtype=np.float32)
    return 0.1 + 0.8 * np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def _view(texture: np.ndarray, shift: np.ndarray, height: int, width: int) -> np.ndarray:
    """The camera's view of the texture, shifted from its middle; it repeats in mirrors beyond the edge."""
    y, x = shift[0] + height / 2, shift[1] + width / 2
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(texture, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)


def _integrate_and_fire(
    views: list[np.ndarray], charge: np.ndarray, spike_h: int, spike_w: int
) -> tuple[np.ndarray, np.ndarray]:
    """Spikes (T, spike_h, spike_w) of what the pixels see, and the charge they are left with."""
    spikes = np.empty((len(views), spike_h, spike_w), np.uint8)
    for t, view in enumerate(views):
        charge = charge + cv2.resize(view @ GRAY, (spike_w, spike_h))
        spikes[t] = charge >= THRESHOLD
        charge = charge - THRESHOLD * spikes[t]
    return spikes, charge


def _write_png(path: Path, rgb: np.ndarray) -> None:
    """Writes (H, W, 3) in [0, 1]."""
    encoded = cv2.imencode(".png", (rgb[..., ::-1] * 255).round().clip(0, 255).astype(np.uint8))[1]
    path.write_bytes(encoded.tobytes())
