"""Finds the spike files of a clip's RGB frames, as `data/spike_io.py` describes them."""

from dataclasses import dataclass
from pathlib import Path

from data.video_clips import Clip
from utils.utils_file import list_folder


@dataclass(frozen=True)
class ClipFiles:
    """The spike files of a clip.

    Attributes:
        paths: `.dat` by RGB frame, for frames that have one.
        whole_clip: one file holds all frames' spikes.
        missing: a sentence on missing files, or "".
    """

    paths: dict[str, Path]
    whole_clip: bool
    missing: str


def clip_folder(root: Path, clip: str, single: bool) -> Path:
    """The folder (or file) of a clip's spikes: `root`/`clip`; for the only clip (`single`) also `root` itself.

    A folder of the clip's name may hold its frames, as where frames lie beside their stream.
    """
    own = root / clip
    if single and (not own.is_dir() or (_holds_spikes(root) and not _holds_spikes(own))):
        return root
    return own


def _holds_spikes(folder: Path) -> bool:
    return (folder / "spike").is_dir() or bool(list_folder(folder, (".dat",)))


def find_spikes(clip: Clip, folder: Path) -> ClipFiles:
    """Finds <folder>/spike/<frame>.dat, or a single `.dat`: in <folder>/spike, in <folder>, or `folder` itself."""
    if folder.is_file():
        return ClipFiles(dict.fromkeys(clip.frames, folder), True, "")
    per_frame = {frame: folder / "spike" / f"{frame}.dat" for frame in clip.frames}
    missing = [path for path in per_frame.values() if not path.is_file()]
    clip_files = [
        file for place in (folder / "spike", folder) if place.is_dir() for file in list_folder(place, (".dat",))
    ]
    if len(missing) == len(per_frame) and len(clip_files) == 1:
        return ClipFiles(dict.fromkeys(clip.frames, clip_files[0]), True, "")
    if not missing:
        return ClipFiles(per_frame, False, "")
    more = f" (and {len(missing) - 1} more of this clip)" if len(missing) > 1 else ""
    fault = f"{missing[0]}: no such spike file{more}; each frame needs one, or the clip one .dat and a sync.json"
    return ClipFiles({frame: path for frame, path in per_frame.items() if path not in missing}, False, fault)
