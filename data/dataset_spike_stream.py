"""Test clips of spikes alone, for networks that compute the picture at the middle of a window of spike frames.

    python main_test_vrt.py --task spike_refine --folder_spike clip.dat                # a picture every 8 spike frames
    python main_test_vrt.py --task spike_refine --folder_lq clip.mp4 --folder_spike clip.dat      # one for each frame
    python main_test_vrt.py --task spike_refine --folder_spike SPIKES --folder_gt SHARP           # with scores

With frames, blurred or sharp, there is a picture at the centre of each frame's exposure (`data/spike_io.py`). Without
frames every .dat below `dataroot_spike` is a clip, whose pictures are named by spike frame. Pictures have the stream's
size, and so do the sharp frames they are compared with.
Test: `python -m pytest tests/data/test_dataset_spike_stream.py`.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

import data.spike.representations  # noqa: F401  registers those of the training-free methods
from data.spike.encoding import build_encoding, threshold_faults
from data.spike.reconstruction.automatic import automatic_threshold
from data.spike.reconstruction.baselines import INTERVAL, MOMENT, as_picture
from data.spike.sync import GOPRO_SPIKES_PER_FRAME, ExposureWindow
from data.spike_io import SpikeFrames
from data.video_clips import Clip, FramePairs, check_roots, report_faults, to_tensor
from utils.spike_loader import SpikeStream, find_threshold
from utils.spike_windows import SpikeWindows
from utils.user_error import UserError
from utils.utils_file import find_files, read_bytes
from utils.utils_image import as_rgb
from utils.utils_registry import DATASETS, Faults, check_rules, raise_faults

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """The stream of a picture, and its spike frame as the centre of an exposure."""

    stream: SpikeStream
    window: ExposureWindow


@DATASETS.register("SpikeStreamTestDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class SpikeStreamTestDataset(Dataset[dict[str, Any]]):
    """Clips of spikes, with or without frames.

    An item is {"L": (T,W,h,w) float32, the windows of T pictures (`utils/spike_windows.py`), "folder": the clip's name,
    "lq_path": [T names of .dat files]}; with `dataroot_lq` also "blurred", (T,3,H,W) in [0,1], only to be looked at,
    with `dataroot_gt` also "H", (T,1,h,w), the sharp frames in gray.
    `clips` lists the clips in the order of the items; `fps` is the frames' rate, None if unknown.

    Raises:
        UserError: the data can't be used with these options; the message lists all faults found.
    """

    packs_spikes: ClassVar[str | None] = "window"

    dataroot_spike: str
    """A .dat, or folders of them; with frames as for `VideoRecurrentTestDatasetRGBSpike`."""
    dataroot_lq: str | None = None
    """Blurred frames whose centres of exposure are reconstructed; null: those of dataroot_gt, if any."""
    dataroot_gt: str | None = None
    """Sharp frames; null: no "H"."""
    pair_by: Literal["name", "order"] = "name"
    """How blurred and sharp clips and frames are paired: by equal names, or by their positions in natural order."""
    window: int = 32
    """Spike frames per picture, W."""
    partial_windows: bool = False
    """Windows may reach outside the stream, for networks that take such windows."""
    stride: int = GOPRO_SPIKES_PER_FRAME
    """Without frames: spike frames from picture to picture."""
    spike_h: int | None = None
    """Height of the spike picture; null: from the nearest config.yaml, else from the file's size."""
    spike_w: int | None = None
    """Width of the spike picture; null: as for the height."""
    spike_flipud: bool = True
    """The files' rows are stored bottom-up."""
    spike_threshold: float | None = None
    """Threshold of the spike camera: intensity = firing rate x threshold; null: that of config.yaml, else, without
    sharp frames, chosen from each clip's brightness."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        for key in ("window", "stride"):
            if arguments.get(key, 1) < 1:
                yield key, f"1 or more; got {arguments[key]}"
        yield from check_rules((threshold_faults,), arguments)

    def __post_init__(self) -> None:
        raise_faults("", self.faults(vars(self)))
        roots = {"dataroot_spike": self.dataroot_spike, "dataroot_lq": self.dataroot_lq}
        check_roots({**roots, "dataroot_gt": self.dataroot_gt})
        self.fps: float | None = None
        self.pairs: FramePairs | None = None
        self.clips: list[Clip] = []
        self._places: dict[tuple[str, str], Place] = {}
        self._windows: dict[Path, SpikeWindows] = {}
        self._thresholds: dict[str, float] = {}
        frames = self.dataroot_lq or self.dataroot_gt
        faults = self._find_streams() if frames is None else self._find_exposures(frames)
        self._frames = {clip.name: clip.frames for clip in self.clips}
        report_faults(faults or list(self._place_faults()), f"The spikes in {self.dataroot_spike} can't be used")
        logger.info("%s: %d clips, %d pictures", type(self).__name__, len(self), sum(map(len, self.clips)))

    def _find_streams(self) -> list[str]:
        """Without frames: every .dat is a clip. Returns the faults."""
        root, faults = Path(self.dataroot_spike).expanduser(), []
        files = [root] if root.is_file() else find_files(root, (".dat",))
        for file in files:
            name = file.stem if file == root else file.relative_to(root).with_suffix("").as_posix()
            try:
                stream = SpikeStream(file, self.spike_h, self.spike_w, flipud=self.spike_flipud)
            except UserError as error:
                faults.append(str(error))
                continue
            moments = SpikeWindows(stream, self.window, 1.0, self.partial_windows).moments
            # As many before the first picture as after the last.
            chosen = moments[len(moments) % self.stride // 2 :: self.stride]
            if not chosen:
                faults.append(f"{file}: {len(stream)} spike frames are fewer than a window's {self.window}")
                continue
            names = [f"{moment:06d}" for moment in chosen]
            self.clips.append(Clip(name, tuple(names)))
            for moment, frame in zip(chosen, names, strict=True):
                self._places[name, frame] = Place(stream, ExposureWindow(0, len(stream), moment))
        return faults if files else [f"dataroot_spike: {root} holds no .dat"]

    def _find_exposures(self, frames: str) -> list[str]:
        """A picture for every frame of a root. Returns the faults."""
        pairs = self.pairs = FramePairs(
            dataroot_lq=frames,
            dataroot_gt=self.dataroot_gt,
            scale=1,
            meta_info_file=None,
            filename_tmpl="06d",
            filename_ext=None,
            io_backend=None,
            pair_by=self.pair_by,
        )
        self.clips, self.fps = pairs.clips, pairs.lq.fps
        self._spikes = SpikeFrames(
            self.dataroot_spike,
            pairs.clips,
            single=pairs.lq.single is not None,
            encoding=build_encoding({"representation": "count"}, 1.0),  # not used: windows are read as they are
            spike_h=self.spike_h,
            spike_w=self.spike_w,
            flipud=self.spike_flipud,
        )
        faults = [*pairs.faults(), *self._spikes.faults]
        faults = faults or self._spikes.register({c.name: pairs.lq.size(c.name) for c in self.clips}, resample=False)
        for clip in [] if faults else self.clips:
            for frame in clip.frames:
                self._places[clip.name, frame] = Place(*self._spikes.stream(clip.name, frame))
        return faults

    def _place_faults(self) -> Iterator[str]:
        """Thresholds that are needed but not stated, and windows that the streams do not have."""
        for clip in self.clips:
            if self._stated_threshold(clip.name) is None and self.dataroot_gt is not None:
                yield (
                    f"{clip.name}: scores need the camera's threshold: spike_threshold in config.yaml, or "
                    "--set datasets.test.spike_threshold=2 (Spk-GoPro's)"
                )
                return
        for clip in self.clips:
            for frame in clip.frames:
                place = self._places[clip.name, frame]
                moments = SpikeWindows(place.stream, self.window, 1.0, self.partial_windows).moments
                if place.window.center not in moments:
                    yield (
                        f"{clip.name}/{frame}: {place.stream.filepath} has {len(place.stream)} spike frames, too few "
                        f"for a window of {self.window} around {place.window.center}"
                    )

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.load(index)

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        """Pictures [begin, end) of clip `index`, as an item; `end` None: to the clip's end."""
        clip = self.clips[index]
        frames = list(clip.frames[begin:end])
        windows = [self._window(clip.name, frame) for frame in frames]
        sample: dict[str, Any] = {
            "L": torch.from_numpy(np.stack(windows)),
            "folder": clip.name,
            "lq_path": [str(self._places[clip.name, frame].stream.filepath) for frame in frames],
        }
        if self.pairs is not None and self.dataroot_lq is not None:
            sample["blurred"] = to_tensor(self.pairs.read_lq(clip.name, frames))
        if self.pairs is not None and self.pairs.gt is not None:
            sharp = [self._spikes.as_seen(clip.name, picture) for picture in self.pairs.read_gt(clip.name, frames)]
            sample["H"] = torch.from_numpy(np.stack(sharp))[:, None]  # (T,1,h,w)
        return sample

    def content(self, index: int) -> Iterator[bytes]:
        """All bytes of the input files of clip `index`, with the places of its pictures."""
        clip = self.clips[index]
        places = [self._places[clip.name, frame] for frame in clip.frames]
        yield repr([(place.stream.shape, place.window, self.threshold(clip.name)) for place in places]).encode()
        for path in dict.fromkeys(place.stream.filepath for place in places):
            yield read_bytes(path)

    def assumptions(self) -> list[str]:
        """Sentences on the assumptions about the spikes, and the options that change them."""
        clip = self.clips[0]
        place, threshold = self._places[clip.name, clip.frames[0]], self.threshold(clip.name)
        chosen = ", chosen from the clip's brightness" if self._stated_threshold(clip.name) is None else ""
        height, width = place.stream.shape[1:]
        if self.pairs is None:
            which = f"a picture every {self.stride} spike frames, from {place.window.center} on (else: --folder_lq, or "
            which += "--set datasets.test.stride=...)"
        else:
            which = f"{clip.name}/{clip.frames[0]}: reconstructed at spike frame {place.window.center} "
            which += "(else: a sync.json beside the spikes, docs/spike_format.md)"
        return [
            f"spikes of {height}x{width} (else: --set datasets.test.spike_h=... datasets.test.spike_w=...), threshold "
            f"{threshold:g}{chosen} (else: --set datasets.test.spike_threshold=...)",
            which,
        ]

    def threshold(self, clip: str) -> float:
        """The threshold of a clip's camera."""
        if clip not in self._thresholds:
            stated = self._stated_threshold(clip)
            if stated is None:
                middle = self._frames[clip][len(self._frames[clip]) // 2]
                stream = self._places[clip, middle].stream
                stated = automatic_threshold(
                    lambda begin, end: stream.get_block_spikes(begin, end - begin), len(stream)
                )
            self._thresholds[clip] = stated
        return self._thresholds[clip]

    def _stated_threshold(self, clip: str) -> float | None:
        """By align.json, the options or config.yaml."""
        aligned = None if self.pairs is None else self._spikes.alignments.get(clip)
        if aligned is not None and aligned.threshold is not None:
            return aligned.threshold
        if self.spike_threshold is not None:
            return self.spike_threshold
        first = self._places[clip, self._frames[clip][0]]
        return find_threshold(first.stream.filepath.resolve().parent)

    def training_free(self, clip: str, frame: str, blurred: np.ndarray | None) -> dict[str, np.ndarray]:
        """Reconstructions without a network, by name, (h,w,3) uint8 gray; `blurred` is not used."""
        place, threshold = self._places[clip, frame], self.threshold(clip)
        size = place.stream.shape[1:]
        pictures = {}
        for name, section in (("gaussian", MOMENT), ("interval", INTERVAL)):
            encoding = build_encoding(section, threshold)
            rate = encoding.encode_crop(place.stream, place.window, 0, 0, *size)[0]
            pictures[name] = as_rgb(as_picture(rate, size))
        return pictures

    def instants(self, clip: str, frame: str, count: int) -> np.ndarray:
        """Intensities, by the Gaussian, at up to `count` equidistant moments of the window, (N,h,w) float32."""
        place, encoding = self._places[clip, frame], build_encoding(MOMENT, self.threshold(clip))
        first = place.window.center - self.window // 2
        begin, end = max(0, first), min(len(place.stream), first + self.window)
        centers = np.unique(np.linspace(begin, end - 1, count).round().astype(int)).tolist()
        moments = [ExposureWindow(begin, end, center) for center in centers]
        size = place.stream.shape[1:]
        return np.concatenate([encoding.encode_crop(place.stream, moment, 0, 0, *size) for moment in moments])

    def _window(self, clip: str, frame: str) -> np.ndarray:
        """(W,h,w) float32."""
        place = self._places[clip, frame]
        path = place.stream.filepath
        if path not in self._windows:  # keeps how many frames are pooled
            self._windows[path] = SpikeWindows(place.stream, self.window, self.threshold(clip), self.partial_windows)
        return self._windows[path].around(place.window.center)
