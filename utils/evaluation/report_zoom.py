"""Parts of the report page that look closer: all methods enlarged alike, and a line of the picture over time.

`report_zoom.js` draws the first when it is opened: zoom and pan for all at once, the error map, and the shown part as
a PNG strip for a paper.
"""

from collections.abc import Mapping
from pathlib import Path

from utils.evaluation.report_gallery import Profile, data_uri
from utils.evaluation.report_text import said
from utils.evaluation.scores import Scores

SCRIPT = Path(__file__).with_name("report_zoom.js")
BUTTONS = (
    ("in", "+", "+"),
    ("out", "−", "−"),
    ("whole", "whole picture", "整幅图像"),
    ("error", "error", "误差"),
    ("save", "save as PNG", "保存为 PNG"),
)
LEAST_FRAMES = 3  # of a profile: two rows show no motion


def zoom_panel() -> str:
    """All methods of a clip, enlarged alike; closed until it is asked for."""
    buttons = "".join(
        said("button", english, chinese, f'type="button" data-do="{action}"') for action, english, chinese in BUTTONS
    )
    note = said(
        "p",
        "Wheel, pinch or + and - enlarge all alike; drag or arrow keys move; 0 shows all, E the error against the "
        "sharp frame times 4, S saves the crops with their place in red.",
        "滚轮、双指或 + 和 - 同步缩放；拖动或方向键移动；0 恢复整幅图像，E 显示与真值的误差（乘以 4），"
        "S 保存裁剪图（位置以红框标出）。",
        "class=note",
    )
    summary = said("summary", "All methods, enlarged", "放大比较全部方法")
    return (
        f'<details class="zoom">{summary}{note}<div class="bar">{buttons}<output></output></div>'
        f'<div class="grid" tabindex="0" role="application" aria-label="zoom"></div></details>'
    )


def profile_panel(profile: Profile | None, views: Mapping[str, str], scores: Scores) -> str:
    """A line of the picture, frame below frame, of every method: motion is a slope, flicker a stripe.

    Args:
        profile: None, or too short, where there is nothing to show.
        views: titles of what is no method, by name.
    """
    if profile is None or len(next(iter(profile.rows.values()))) < LEAST_FRAMES:
        return ""
    figures = "".join(
        f'<figure><img src="{data_uri(profile.picture(name))}" alt="">'
        f"{said('figcaption', views.get(name) or scores.title(name))}</figure>"
        for name in profile.rows
    )
    note = said(
        "p",
        f"Row {profile.row} of every frame, the first on top.",
        f"每帧的第 {profile.row} 行，自上而下为时间。",
        "class=note",
    )
    summary = said("summary", "A line over time", "单行时间剖面")
    return f'<details class="profile">{summary}{note}<div class="grid">{figures}</div></details>'
