"""The page that `scripts.align` writes: frames and spikes over each other, and how sure the clock is.

One HTML file with its pictures inside; nothing else is loaded.
"""

import base64
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from data.doctor.inspection import spread
from data.spike.alignment.align import Found
from data.spike.alignment.result import Alignment
from data.spike.simulation.simulate import linear_to_srgb, to_uint8
from data.spike.sync import ExposureWindow
from utils.spike_loader import SpikeStream

TEMPLATE = Path(__file__).with_name("align_page.html")
PICTURES = 6  # frames that are shown
WIDTH = 640  # pixels of a picture, at most


def make_page(
    found: Found,
    alignment: Alignment,
    windows: Mapping[str, ExposureWindow],
    names: Sequence[str],
    stream: SpikeStream,
    read_frame: Callable[[int], np.ndarray],
) -> str:
    """The page's text."""
    shown = []
    for name in spread([*windows], PICTURES):
        window = windows[name]
        frame = read_frame(names.index(name))
        rate = stream.crop(window.begin, len(window), 0, 0, stream.spike_h, stream.spike_w).mean(0, dtype=np.float32)
        shown.append(
            {
                "name": name,
                "exposure": f"spike frames {window.begin} to {window.end - 1}",
                "frame": _encoded(_limited(frame)),
                "spikes": _encoded(_limited(as_picture(rate, alignment, found))),
            }
        )
    offsets, correlations = found.curve
    numbers, likeness = found.frames
    data = {
        "pictures": shown,
        "curve": [[round(float(x), 3), round(float(y), 5)] for x, y in zip(offsets, correlations, strict=True)],
        "frames": [[names[int(k)], round(float(y), 5)] for k, y in zip(numbers, likeness, strict=True)],
        "error": alignment.measured["time"]["errors"]["center"],
    }
    rows = "".join(f"<tr><th>{html.escape(what)}</th><td>{html.escape(told)}</td></tr>" for what, told in table(found))
    content = {
        "title": html.escape(stream.filepath.stem),
        "rows": rows,
        "data": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: content[match[1]], TEMPLATE.read_text(encoding="utf-8"))


def table(found: Found) -> list[tuple[str, str]]:
    """What was measured, for people."""
    model, errors, brightness = found.model, found.errors, found.brightness
    rows = []
    if found.time.told:
        rows += [
            (
                f"middle of exposure {model.middle:g}",
                f"spike frame {model.center:.1f} ± {errors['center']:.1f}",
            ),
            ("spike frames per frame", f"{model.period:.2f} ± {errors['period']:.2f}"),
            ("exposure", f"{model.exposure:.1f} ± {errors['exposure']:.1f} spike frames"),
        ]
    else:
        rows.append(("time", f"cannot be told: {found.time.why}"))
    if found.space.told:
        kind = "a pure scale" if found.shared_lens else "a homography"
        rows.append(("space", f"{kind}, ± {errors['homography']:.2f} spike pixels"))
    else:
        rows.append(("space", f"cannot be told: {found.space.why}"))
    if brightness is not None:
        light = "linear light" if brightness.linear else "stored values"
        rows.append(("threshold", f"{brightness.threshold:.3f} ± {brightness.threshold_error:.3f} ({light})"))
        rows.append(("red, green, blue", ", ".join(f"{gain:.2f}" for gain in brightness.gains)))
    rows.append(("correlation of frames and spikes", f"{found.correlation:.3f}"))
    return rows


def as_picture(rate: np.ndarray, alignment: Alignment, found: Found) -> np.ndarray:
    """A firing rate (h,w) as a gray picture on the frame, (H,W) uint8."""
    threshold = alignment.threshold if alignment.threshold is not None else 0.9 / max(float(rate.max()), 1e-6)
    light = np.clip(rate * threshold, 0, 1)
    if found.brightness is not None and found.brightness.linear:
        light = linear_to_srgb(light)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(to_uint8(light), alignment.matrix, alignment.frame_size[::-1], flags=flags)


def _limited(picture: np.ndarray) -> np.ndarray:
    """At most WIDTH wide."""
    width = picture.shape[1]
    if width <= WIDTH:
        return picture
    return cv2.resize(picture, (WIDTH, round(picture.shape[0] * WIDTH / width)), interpolation=cv2.INTER_AREA)


def _encoded(picture: np.ndarray) -> str:
    """A picture as a data URI."""
    stored = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    jpeg = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
