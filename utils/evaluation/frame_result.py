"""A restored frame with the pictures to compare it with; the tester passes it to logs, results and report."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FrameResult:
    """A restored frame; pictures are uint8 RGB (H,W,3).

    Attributes:
        clip, frame: names.
        index, length: index of the frame, and number of frames restored of the clip; frames come in order of index.
        blurred: the input frame, None where there are spikes alone. restored: the network's result.
        sharp: the ground truth, None without one.
        spikes: a view of the frame's spikes (h,w) gray, None without spikes.
        times: instants at which each blurred frame is restored, as shares of its exposure; frames are then these
            instants, exposure after exposure. (): the centre only.
        restored_deep: the restored frame as uint16 if the input has 16 bits per channel, else None.
    """

    clip: str
    frame: str
    index: int
    length: int
    blurred: np.ndarray | None
    restored: np.ndarray
    sharp: np.ndarray | None
    spikes: np.ndarray | None
    times: tuple[float, ...] = ()
    restored_deep: np.ndarray | None = None

    @property
    def time(self) -> float | None:
        """The instant as share of the exposure; None if frames are restored at its centre only."""
        return self.times[self.index % len(self.times)] if self.times else None

    @property
    def is_of_middle(self) -> bool:
        """Whether this is an instant of the clip's middle exposure."""
        instants = max(1, len(self.times))
        return self.index // instants == self.length // instants // 2

    @property
    def is_middle(self) -> bool:
        """Whether this is the clip's middle frame (or its middle instant), which represents the clip in logs."""
        instants = max(1, len(self.times))
        return self.is_of_middle and self.index % instants == instants // 2

    def views(self) -> list[tuple[str, np.ndarray]]:
        """Titles and pictures of input, spikes, restored and sharp frame, without those that are None."""
        pictures = {"input": self.blurred, "spikes": self.spikes, "restored": self.restored, "sharp": self.sharp}
        return [(title, picture) for title, picture in pictures.items() if picture is not None]
