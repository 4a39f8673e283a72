"""A restored frame with its neighbours in a comparison: what the tester hands to logs, results and report."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FrameResult:
    """A restored frame; pictures are uint8 RGB (H,W,3).

    Attributes:
        clip, frame: names.
        index, length: place among the frames that the clip gives, and how many there are: frames come in order, the
            last one has index length - 1.
        blurred: the input frame. restored: the network's. sharp: the ground truth, None where there is none.
        spikes: a view of the frame's spikes (h,w) gray, None without spikes.
        times: instants that each blurred frame is restored at, shares of its exposure; () at its centre alone. The
            frames are then those instants, exposure after exposure.
        restored_deep: the restored frame as uint16 where the input has 16 bits per channel, else None.
    """

    clip: str
    frame: str
    index: int
    length: int
    blurred: np.ndarray
    restored: np.ndarray
    sharp: np.ndarray | None
    spikes: np.ndarray | None
    times: tuple[float, ...] = ()
    restored_deep: np.ndarray | None = None

    @property
    def time(self) -> float | None:
        """The instant of the exposure, None where frames are restored at its centre alone."""
        return self.times[self.index % len(self.times)] if self.times else None

    @property
    def is_of_middle(self) -> bool:
        """Whether this is an instant of the clip's middle exposure."""
        instants = max(1, len(self.times))
        return self.index // instants == self.length // instants // 2

    @property
    def is_middle(self) -> bool:
        """Whether this is the clip's middle frame, the one shown of a clip; of instants the middle one of it."""
        instants = max(1, len(self.times))
        return self.is_of_middle and self.index % instants == instants // 2

    def views(self) -> list[tuple[str, np.ndarray]]:
        """Titles and pictures of input, spikes, restored and sharp frame, without those that are None."""
        pictures = {"input": self.blurred, "spikes": self.spikes, "restored": self.restored, "sharp": self.sharp}
        return [(title, picture) for title, picture in pictures.items() if picture is not None]
