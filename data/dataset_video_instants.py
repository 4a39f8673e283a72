"""Test clips restored at several instants of every exposure: each blurred frame and its spikes are a short film.

    python main_test_vrt.py --task guided --folder_lq CLIP --folder_spike CLIP.dat --times 0:1:1/16

makes this data set of the one that the options name. A clip's frames are the instants, exposure after exposure: `L`
repeats the blurred frame, `L_spike` has its spikes as seen from the instant, `H` the sharp picture where there is one.
Test: `python -m pytest tests/data/test_dataset_video_instants.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data.dataset_video_rgbspike import VideoRecurrentTestDatasetRGBSpike
from data.spike.sync import ExposureWindow
from data.sub_frames import SubFrames
from data.video_clips import Clip, bits_of, to_tensor
from utils.exposure_times import times_faults
from utils.utils_registry import DATASETS, Faults


@DATASETS.register("VideoInstantsTestDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class VideoInstantsTestDataset(VideoRecurrentTestDatasetRGBSpike):
    """`VideoRecurrentTestDatasetRGBSpike` with N instants of each of its frames, called `<frame>_<number>`.

    Items hold "H" where each of their frames has a sharp picture at its instant.
    """

    times: list[float]
    """The instants, ascending shares of an exposure: 0 at its first spike frame, 1 at its last."""
    dataroot_instants: str | None = None
    """Sharp pictures of instants (`data/sub_frames.py`); null: those of `dataroot_gt` at the centres alone."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        yield from VideoRecurrentTestDatasetRGBSpike.faults(arguments)
        if "times" in arguments:
            yield from times_faults(arguments["times"])

    def __post_init__(self) -> None:
        super().__post_init__()
        digits = len(str(len(self.times) - 1))
        self.clips = [
            Clip(clip.name, tuple(f"{frame}_{n:0{digits}d}" for frame in clip.frames for n in range(len(self.times))))
            for clip in self.pairs.clips
        ]
        self._places = {
            (film.name, name): (clip.frames[number // len(self.times)], self.times[number % len(self.times)])
            for film, clip in zip(self.clips, self.pairs.clips, strict=True)
            for number, name in enumerate(film.frames)
        }

    def _roots(self) -> dict[str, str | None]:
        return {**super()._roots(), "dataroot_instants": self.dataroot_instants}

    def _faults(self) -> list[str]:
        faults = super()._faults()
        if faults:
            return faults
        self.sub_frames = SubFrames(self.dataroot_instants, self.pairs, self.spikes)
        return self.sub_frames.faults()

    def place(self, clip: str, frame: str) -> tuple[str, ExposureWindow]:
        blurred, time = self._places[clip, frame]
        return blurred, self.spikes.exposure(clip, blurred).at(time)

    def assumptions(self) -> list[str]:
        listed = ", ".join(f"{time:g}" for time in self.times)
        return [*super().assumptions(), f"restored at {len(self.times)} instants of each exposure: {listed}"]

    def content(self, index: int) -> Iterator[bytes]:
        yield repr(self.times).encode()
        yield from super().content(index)

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        clip = self.clips[index]
        places = [self.place(clip.name, name) for name in clip.frames[begin:end]]
        frames, windows = [frame for frame, _ in places], [window for _, window in places]
        blurred = self.pairs.read_lq(clip.name, frames)
        sample: dict[str, Any] = {
            "L": to_tensor(blurred),
            "bits": bits_of(blurred),
            "folder": clip.name,
            "lq_path": [self.pairs.lq.where(clip.name, frame) for frame in frames],
        }
        if all(self.sub_frames.has(clip.name, *place) for place in places):
            sample["H"] = to_tensor(self.sub_frames.read(clip.name, frames, windows))
        return self._spikes.added_to(sample, clip.name, frames, windows=windows)
