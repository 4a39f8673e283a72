"""Pictures for the report page, encoded as they come so that a long test keeps little: a frame per clip, its extremes.

JPEG at a bounded size; what is smaller than `LOSSLESS_SIDE` is PNG.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from utils.utils_image import as_rgb, most_different

CLIPS_SHOWN = 16  # clips with pictures
MAX_SIDE = 960  # pixels of a picture
LOSSLESS_SIDE = 320  # up to this side PNG costs little, and crops show no JPEG blocks
QUALITY = 88  # of JPEG, 0 to 100
CROP = 128  # side of what is shown of a worst or best frame
INSTANTS_SIDE = 240  # pixels of one instant of an exposure
PROFILE_FRAMES = 32  # of a clip for its profile: at PROFILE_SIDE some 10 kB each, for every method
PROFILE_SIDE = 320  # pixels of such a frame
FILM_SIDE = 480  # pixels of a restored instant: a clip has many


@dataclass(frozen=True)
class ShownFrame:
    """A clip's frame that is compared on the page.

    Attributes:
        size: height and width of its restored picture.
        views: data URIs by name: methods as in `scores.METHODS`, "sharp", "spikes".
        instants: data URI of the exposure's spikes as pictures side by side, None without.
        instant_count: how many there are. instant_size: height and width of one.
    """

    frame: str
    size: tuple[int, int]
    views: dict[str, str]
    instants: str | None = None
    instant_count: int = 0
    instant_size: tuple[int, int] = (0, 0)


@dataclass
class Film:
    """A clip's middle exposure as it was restored at several instants.

    Attributes:
        frame: name of its first instant.
        size: height and width of its pictures.
        blurred: data URI of the frame.
        times: the instants, shares of the exposure.
        views: data URIs of the pictures at these instants, by method.
    """

    frame: str
    size: tuple[int, int]
    blurred: str
    times: list[float] = field(default_factory=list)
    views: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Extreme:
    """A clip's worst or best frame: its PSNR and crops as data URIs by method, "sharp" last."""

    clip: str
    frame: str
    psnr: float
    crops: dict[str, str]


@dataclass
class Profile:
    """A clip's frames in small, for a line of the picture over time.

    Attributes:
        at: height of the horizontal line that is shown first, as a share of the picture's.
        views: by method, data URIs of the first `PROFILE_FRAMES` frames; "sharp" is the last.
    """

    at: float
    views: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Gallery:
    """The pictures of a test.

    Attributes:
        shown: by clip, of the first `CLIPS_SHOWN` ones. left_out: names of the others.
        worst, best: by clip, in network PSNR.
        profiles: by clip, of those with pictures.
        films: by clip, of those shown, where exposures are restored at several instants.
    """

    shown: dict[str, ShownFrame] = field(default_factory=dict)
    films: dict[str, Film] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    worst: dict[str, Extreme] = field(default_factory=dict)
    best: dict[str, Extreme] = field(default_factory=dict)

    @classmethod
    def merged(cls, parts: Sequence["Gallery"], order: Sequence[str]) -> "Gallery":
        """The pictures of tests of different clips as those of one test of the clips in `order`."""
        gallery = cls()
        for name in ("shown", "films", "profiles", "worst", "best"):
            found = {clip: value for part in parts for clip, value in getattr(part, name).items()}
            setattr(gallery, name, {clip: found[clip] for clip in order if clip in found})
        left_out = {clip for part in parts for clip in part.left_out} | set(list(gallery.shown)[CLIPS_SHOWN:])
        gallery.left_out = [clip for clip in order if clip in left_out]
        gallery.shown = dict(list(gallery.shown.items())[:CLIPS_SHOWN])
        gallery.films = {clip: film for clip, film in gallery.films.items() if clip in gallery.shown}
        return gallery

    def show(self, clip: str, frame: str, pictures: Mapping[str, np.ndarray], instants: np.ndarray | None) -> None:
        """Takes the frame that stands for a clip.

        Args:
            pictures: by view, uint8; "" is the restored one.
            instants: (N,h,w) float, about [0,1]: the exposure's spikes in N equal parts.
        """
        if len(self.shown) >= CLIPS_SHOWN:
            self.left_out.append(clip)
            return
        views = {name: data_uri(picture) for name, picture in pictures.items()}
        height, width = pictures[""].shape[:2]
        if instants is None:
            self.shown[clip] = ShownFrame(frame, (height, width), views)
            return
        strip = np.concatenate([_shrunk(plane, INSTANTS_SIDE) for plane in as_uint8(instants)], axis=1)
        size = strip.shape[0], strip.shape[1] // len(instants)
        uri = data_uri(strip, max_side=strip.shape[1])
        self.shown[clip] = ShownFrame(frame, (height, width), views, uri, len(instants), size)

    def add_view(self, clip: str, name: str, picture: np.ndarray) -> None:
        """Adds a picture (uint8) to those of the frame that stands for a clip, if it is shown."""
        if clip in self.shown:
            self.shown[clip].views[name] = data_uri(picture)

    def add_instant(
        self, clip: str, frame: str, time: float, blurred: np.ndarray, pictures: Mapping[str, np.ndarray]
    ) -> None:
        """Takes an instant of the exposure that stands for a clip, in the order of time.

        Args:
            time: share of the exposure.
            blurred: the frame, uint8.
            pictures: by method, uint8.
        """
        if clip not in self.films:
            if len(self.films) >= CLIPS_SHOWN:
                return
            self.films[clip] = Film(frame, blurred.shape[:2], data_uri(blurred, FILM_SIDE))
        film = self.films[clip]
        film.times.append(time)
        for name, picture in pictures.items():
            film.views.setdefault(name, []).append(data_uri(picture, FILM_SIDE))

    def judge(
        self, clip: str, frame: str, sharp: np.ndarray, pictures: Mapping[str, np.ndarray], row: Mapping[str, float]
    ) -> None:
        """Keeps a scored frame where it is the worst or best of its clip so far, and its row of the clip's profile."""
        self._add_to_profile(clip, sharp, pictures)
        psnr = row["psnr"]
        if clip not in self.worst or psnr < self.worst[clip].psnr:
            box = most_different(pictures[""], sharp, CROP)
            self.worst[clip] = Extreme(clip, frame, psnr, _crops(sharp, pictures, box))
        if clip not in self.best or psnr > self.best[clip].psnr:
            before = pictures.get("input", pictures[""])
            self.best[clip] = Extreme(clip, frame, psnr, _crops(sharp, pictures, most_different(before, sharp, CROP)))

    def _add_to_profile(self, clip: str, sharp: np.ndarray, pictures: Mapping[str, np.ndarray]) -> None:
        if clip not in self.profiles:
            if len(self.profiles) >= CLIPS_SHOWN:
                return
            # Through the middle of where the first frame is blurred most: the row where there is most to see.
            top, _, height, _ = most_different(pictures.get("input", pictures[""]), sharp, CROP)
            self.profiles[clip] = Profile((top + height // 2 + 0.5) / len(sharp))
        views = self.profiles[clip].views
        for name, picture in {**{name: pictures[name] for name in _in_order(pictures)}, "sharp": sharp}.items():
            if picture.shape[:2] == sharp.shape[:2] and len(views.get(name, [])) < PROFILE_FRAMES:
                views.setdefault(name, []).append(data_uri(as_rgb(picture), PROFILE_SIDE, lossless_side=0))


def data_uri(picture: np.ndarray, max_side: int = MAX_SIDE, lossless_side: int = LOSSLESS_SIDE) -> str:
    """A uint8 picture, (H,W,3) RGB or (H,W), as a data URI of at most `max_side` pixels a side; PNG up to another."""
    small = _shrunk(picture, max_side)
    lossless = max(small.shape[:2]) <= lossless_side
    stored = small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    suffix, settings = (".png", []) if lossless else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    encoded, content = cv2.imencode(suffix, stored, settings)
    assert encoded, f"{stored.shape} could not be encoded as {suffix}"
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode('ascii')}"


def as_uint8(planes: np.ndarray) -> np.ndarray:
    """Non-negative float planes as uint8, their 99.5th percentile white."""
    white = max(float(np.percentile(planes, 99.5)), 1e-6)
    return np.clip(np.rint(planes * (255 / white)), 0, 255).astype(np.uint8)


def _crops(sharp: np.ndarray, pictures: Mapping[str, np.ndarray], box: tuple[int, int, int, int]) -> dict[str, str]:
    """Crops of the pictures in colour, input first, network and sharp picture last."""
    top, left, height, width = box
    coloured = {name: picture for name, picture in pictures.items() if picture.ndim == 3}
    named = {name: coloured[name] for name in _in_order(coloured)} | {"sharp": sharp}
    return {name: data_uri(as_rgb(p)[top : top + height, left : left + width]) for name, p in named.items()}


def _in_order(methods: Iterable[str]) -> list[str]:
    """The input first, the network last."""
    return sorted(methods, key=lambda name: (name == "", name != "input"))


def _shrunk(picture: np.ndarray, max_side: int) -> np.ndarray:
    """A picture brought to at most `max_side` pixels a side, its shape kept."""
    height, width = picture.shape[:2]
    factor = max_side / max(height, width)
    if factor >= 1:
        return np.ascontiguousarray(picture)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
