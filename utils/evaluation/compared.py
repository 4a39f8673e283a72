"""Restored frames of other tests of the same clips, scored and shown beside those of this test.

python main_test_vrt.py --task guided ... --save_result
python main_test_vrt.py --opt FILE --compare results/guided "light network=results/guided_long"
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.evaluation.frame_result import FrameResult
from utils.evaluation.results import frame_path
from utils.evaluation.scores import METHODS, METRICS
from utils.user_error import UserError
from utils.utils_file import read_bytes
from utils.utils_image import decode_rgb, to_8_bits

NAME = r"\w[\w .,+-]*"  # safe without escaping in file headers, HTML attributes and selectors


class ComparedResults:
    """Results of other tests by name.

    Args:
        flags: "FOLDER", whose name is then the result's, or "NAME=FOLDER"; folders written by `--save_result`.
        clips: this test's (`clips` of a test set); each folder must have all their frames.

    Raises:
        UserError: a name that can't be used or is used twice, or a missing frame.
    """

    def __init__(self, flags: Sequence[str], clips: Iterable[Any]) -> None:
        self.folders: dict[str, Path] = {}
        taken = {*METHODS, *METHODS.values(), *METRICS, "sharp", "spikes"}
        for flag in flags:
            before, equals, after = flag.partition("=")
            folder = Path(after if equals else flag)
            name = before if equals else folder.absolute().name
            if not re.fullmatch(NAME, name) or name in taken or name in self.folders:
                raise UserError(
                    f"--compare {flag}: {name!r} can't be used as its name; give NAME={folder} with a name of letters "
                    "and digits that no other result has"
                )
            self.folders[name] = folder
        for clip in clips if self.folders else ():
            for frame in clip.frames if clip.target is None else [clip.target]:
                for folder in self.folders.values():
                    if not frame_path(folder, clip.name, frame).is_file():
                        raise UserError(
                            f"--compare: {frame_path(folder, clip.name, frame)} is missing; restore the same clips "
                            f"there by ./svrt test ... --save_result --output {shlex.quote(str(folder.parent))}"
                        )

    def pictures(self, result: FrameResult) -> dict[str, np.ndarray]:
        """The same frame restored by the other tests, by name.

        Raises:
            UserError: an unreadable file, or another size.
        """
        pictures = {}
        for name, folder in self.folders.items():
            path = frame_path(folder, result.clip, result.frame)
            pictures[name] = to_8_bits(decode_rgb(read_bytes(path), str(path), most_bits=16))
            if pictures[name].shape != result.restored.shape:
                raise UserError(
                    f"--compare: {path} is {pictures[name].shape[0]}x{pictures[name].shape[1]}, the frame restored "
                    f"now {result.restored.shape[0]}x{result.restored.shape[1]}"
                )
        return pictures
