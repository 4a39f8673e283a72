"""Parts of the report page that look closer: all methods enlarged alike, and a line of the picture over time.

Scripts draw them when they are opened: `report_zoom.js` zooms and pans all at once and shows the error map,
`report_profile.js` lets the reader draw the line, `report_strip.js` saves either as PNG or PDF for a paper.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.evaluation.report_gallery import Profile
from utils.evaluation.report_text import said
from utils.evaluation.scores import Scores

SCRIPTS = [Path(__file__).with_name(f"report_{name}.js") for name in ("strip", "zoom", "profile")]
SAVE_BUTTONS = (("png", "save as PNG", "保存为 PNG"), ("pdf", "save as PDF", "保存为 PDF"))
PROFILE_BUTTONS = (("reset", "first line", "初始线段"), *SAVE_BUTTONS)
ZOOM_BUTTONS = (
    ("in", "+", "+"),
    ("out", "−", "−"),
    ("whole", "whole picture", "整幅图像"),
    ("error", "error", "误差"),
    *SAVE_BUTTONS,
)
LEAST_FRAMES = 3  # of a profile: two rows show no motion


def zoom_panel() -> str:
    """All methods of a clip, enlarged alike; closed until it is asked for."""
    note = said(
        "p",
        "Wheel, pinch or + and - enlarge all alike; drag or arrow keys move; 0 shows all, E the error against the "
        "sharp frame times 4, S or P saves the crops with their place in red, as PNG or PDF.",
        "滚轮、双指或 + 和 - 同步缩放；拖动或方向键移动；0 恢复整幅图像，E 显示与真值的误差（乘以 4），"
        "S 或 P 将裁剪图（位置以红框标出）存为 PNG 或 PDF。",
        "class=note",
    )
    summary = said("summary", "All methods, enlarged", "放大比较全部方法")
    return (
        f'<details class="zoom">{summary}{note}<div class="bar">{_buttons(ZOOM_BUTTONS)}<output></output></div>'
        f'<div class="grid" tabindex="0" role="application" aria-label="zoom"></div></details>'
    )


def profile_panel(profile: Profile | None, views: Mapping[str, str], scores: Scores) -> str:
    """A line of the picture, frame below frame, of every method: motion is a slope, flicker a stripe.

    Args:
        profile: None, or too short, where there is nothing to show.
        views: titles of what is no method, by name.
    """
    if profile is None or len(next(iter(profile.views.values()))) < LEAST_FRAMES:
        return ""
    figures = []
    for name, uris in profile.views.items():
        stores = "".join(f'<template data-src="{uri}"></template>' for uri in uris)
        title = said("figcaption", views.get(name) or scores.title(name))
        figures.append(f"<figure>{stores}<canvas></canvas>{title}</figure>")
    note = said(
        "p",
        "Draw a line on the picture: below is what lies on it in every frame, the first on top, from the ring on. "
        "Keys: arrows move it, [ and ] turn it, + and - change its length, 0 brings the first one back, S or P saves.",
        "在图上画一条线：下方为各帧中该线上的像素，自上而下为时间，左端为圆环处。"
        "按键：方向键移动，[ 和 ] 旋转，+ 和 - 改变长度，0 恢复初始线段，S 或 P 保存。",
        "class=note",
    )
    summary = said("summary", "A line over time", "沿线的时间剖面")
    return (
        f'<details class="profile" data-at="{profile.at}">{summary}{note}<div class="bar">{_buttons(PROFILE_BUTTONS)}'
        f'</div><div class="draw" tabindex="0" role="application" aria-label="line"><canvas></canvas></div>'
        f'<div class="grid">{"".join(figures)}</div></details>'
    )


def _buttons(buttons: Sequence[tuple[str, str, str]]) -> str:
    """Buttons of (action, English, Chinese)."""
    return "".join(
        said("button", english, chinese, f'type="button" data-do="{action}"') for action, english, chinese in buttons
    )
