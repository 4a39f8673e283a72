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
    """

    clip: str
    frame: str
    index: int
    length: int
    blurred: np.ndarray
    restored: np.ndarray
    sharp: np.ndarray | None
    spikes: np.ndarray | None

    @property
    def is_middle(self) -> bool:
        """Whether this is the clip's middle frame, the one shown of a clip."""
        return self.index == self.length // 2

    def views(self) -> list[tuple[str, np.ndarray]]:
        """Titles and pictures of input, spikes, restored and sharp frame, without those that are None."""
        pictures = {"input": self.blurred, "spikes": self.spikes, "restored": self.restored, "sharp": self.sharp}
        return [(title, picture) for title, picture in pictures.items() if picture is not None]
