"""Sharp pictures of several instants of each exposure, as written by `simulate_dataset --instants`.

    <dataroot_instants>/<clip>/<frame>_<spike frame>.png

<spike frame> is the index, in the frame's spike file, of the spike frame at the picture's instant.
Test: `python -m pytest tests/data/test_sub_frames.py`.
"""

from collections.abc import Sequence

import numpy as np

from data.frame_io import Box, open_frames
from data.spike.sync import ExposureWindow, sub_frame_name
from data.spike_io import SpikeFrames
from data.video_clips import FramePairs


class SubFrames:
    """The sharp pictures of instants of a data set's exposures, including those of `dataroot_gt` at their centres.

    Args:
        root: the data root; None: the centres only.
        pairs, spikes: the data set's frames and spikes, without faults.
    """

    def __init__(self, root: str | None, pairs: FramePairs, spikes: SpikeFrames) -> None:
        self.pairs, self.spikes = pairs, spikes
        self.frames = None if root is None else open_frames("dataroot_instants", root, single_name=pairs.lq.single)
        clips = {} if self.frames is None else self.frames.clips
        self._names = {clip: frozenset(names) for clip, names in clips.items()}

    def faults(self) -> list[str]:
        """Clips without pictures, and pictures of another size than the sharp ones."""
        faults: list[str] = []
        for clip in [] if self.frames is None else self.pairs.clips:
            assert self.frames is not None
            height, width = (side * self.pairs.scale for side in self.pairs.lq.size(clip.name))
            if clip.name not in self._names:
                faults.append(f"{clip.name}: not in dataroot_instants {self.frames.root}")
            elif self.frames.size(clip.name) != (height, width):
                found = "x".join(map(str, self.frames.size(clip.name)))
                faults.append(f"{clip.name}: pictures of {found} in dataroot_instants; {height}x{width} are needed")
        return faults

    def windows(self, clip: str, frame: str) -> list[ExposureWindow]:
        """The instants of an exposure that have a picture, in order of time, each as centre of the exposure."""
        exposure = self.spikes.exposure(clip, frame)
        centers = range(exposure.begin, exposure.end)
        windows = [ExposureWindow(exposure.begin, exposure.end, center) for center in centers]
        return [window for window in windows if self.has(clip, frame, window)]

    def has(self, clip: str, frame: str, window: ExposureWindow) -> bool:
        """Whether there is a sharp picture of a frame at the centre of `window`."""
        if self.pairs.gt is not None and window == self.spikes.exposure(clip, frame):
            return True
        return sub_frame_name(frame, window.center) in self._names.get(clip, ())

    def read(
        self, clip: str, frames: Sequence[str], windows: Sequence[ExposureWindow], box: Box | None = None
    ) -> np.ndarray:
        """The sharp pictures of frames at the centres of `windows`, which must exist: (T,h,w,3) uint8 RGB.

        Args:
            box: part of the pictures, in pixels of the blurred frames; None: all.
        """
        return np.stack([self._one(clip, *each, box) for each in zip(frames, windows, strict=True)])

    def _one(self, clip: str, frame: str, window: ExposureWindow, box: Box | None) -> np.ndarray:
        name = sub_frame_name(frame, window.center)
        if self.frames is None or name not in self._names.get(clip, ()):
            return self.pairs.read_gt(clip, [frame], box)[0]
        return self.frames.read(clip, name, None if box is None else box.scaled(self.pairs.scale))
