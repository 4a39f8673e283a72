"""The report of a test: one HTML file that needs nothing else, with the table, curves, comparisons and extremes.

    python main_test_vrt.py --opt options/demo/quickstart.json       # writes results/demo_quickstart/index.html

The template is `report_page.html`. Texts carry their Chinese form in `data-zh`; every number is that of metrics.json,
which the page holds in its element `metrics`.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.evaluation.chart import line_chart
from utils.evaluation.report_films import film_scrubber, instants_section, trust_section
from utils.evaluation.report_gallery import Extreme, Gallery, ShownFrame
from utils.evaluation.report_text import said, section
from utils.evaluation.report_zoom import SCRIPTS, profile_panel, zoom_panel
from utils.evaluation.scores import METRICS, Scores, format_value, gain, key_of
from utils.evaluation.sweep import Sweep
from utils.evaluation.trust_meter import TrustMeter
from utils.utils_file import atomic_write

TEMPLATE = Path(__file__).with_name("report_page.html")
EXTREMES = 3  # worst and as many best frames
SMALL = 320  # pictures up to this width stand beside their curve, others above it

SWEEP_KINDS = {
    "threshold": ("Threshold of the spike camera", "脉冲相机阈值"),
    "shift": ("Spikes late, in spike frames", "脉冲延迟（脉冲帧）"),
    "drop": ("Share of spikes lost", "丢失的脉冲比例"),
    "noise": ("Probability of false spikes", "误发脉冲概率"),
}
SWEEP_LINES = {
    "network": ("network", "网络"),
    "told": ("network, told the threshold", "网络（已知阈值）"),
    "sdm": ("training-free", "免训练"),
}
SWEEP_COLOURS = {"network": "network", "told": "spikes", "sdm": "free"}
DEFINITIONS = [
    (
        "PSNR, SSIM",
        "Of 8-bit RGB pictures, border 0, as KAIR computes them; higher is better.",
        "8 位 RGB 图像，边界为 0，与 KAIR 一致；越高越好。",
    ),
    ("PSNR_Y, SSIM_Y", "The same of BT.601 luma, in [16, 235].", "BT.601 亮度（[16, 235]）上的同一指标。"),
    ("LPIPS", "Learned perceptual distance, version 0.1; lower is better.", "学习的感知距离(0.1 版);越低越好。"),
    (
        "tOF",
        "Mean distance in pixels between the optical flow of consecutive restored frames and that of the sharp ones; "
        "lower is steadier.",
        "相邻复原帧光流与真值光流之间的平均距离(像素);越低越稳定。",
    ),
    (
        "CVVDP",
        "ColorVideoVDP of a clip, in just-objectionable differences; 10 is no visible difference.",
        "片段的 ColorVideoVDP（JOD）；10 表示没有可见差异。",
    ),
    (
        "training-free",
        "The blurred frame times the spikes' rate at the middle of the exposure over their rate during it.",
        "模糊帧乘以曝光中点与整个曝光期间脉冲发放率之比。",
    ),
    (
        "training-free, charge",
        "The same with rates from the time between spikes, which have less noise than their number.",
        "同上，但发放率取自相邻脉冲的间隔，噪声小于脉冲计数。",
    ),
]
VIEWS = ("sharp", "spikes")  # beside the methods
CURVES = {"input": "input", "sdm": "sdm", "network": ""}
"""CSS name of a curve's colour, and the method it shows."""


def write_page(
    path: Path,
    title: str,
    settings: Sequence[str],
    scores: Scores,
    gallery: Gallery,
    sweep: Sweep | None = None,
    trust: TrustMeter | None = None,
) -> None:
    """Writes the page.

    Args:
        title: of the page, the task.
        settings: lines below it: checkpoint, data, tiles.
        scores: of the test; without rows there are pictures alone.
        gallery: its pictures.
        sweep: scores with spikes made worse.
        trust: verdicts on the exposures.
    """
    parts = []
    if scores.rows:
        parts += [_headline(scores), _method_tables(scores), _clip_table(scores)]
    if trust is not None:
        parts.append(trust_section(trust))
    if len(scores.instants()) > 1:
        parts.append(instants_section(scores))
    parts.append(_comparisons(scores, gallery))
    if scores.rows:
        parts += [_extremes("worst", gallery.worst, scores), _extremes("best", gallery.best, scores)]
    if sweep is not None:
        parts.append(_sweep(sweep))
    if scores.rows:
        parts.append(_notes())
    content = {
        "title": html.escape(title),
        "subtitle": "".join(f"<p>{html.escape(line)}</p>" for line in settings),
        "body": "\n".join(parts),
        "footer": "S-VRT · metrics.json, metrics.csv",
        # "</script" would end the script element, "<!--<script" would keep it from ending.
        "closer": "".join(script.read_text(encoding="utf-8") for script in SCRIPTS),
        "metrics": json.dumps(scores.summary(), allow_nan=False, ensure_ascii=False).replace("<", "\\u003c"),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: content[match[1]], TEMPLATE.read_text(encoding="utf-8"))
    with atomic_write(path) as file:
        file.write(page)


def _headline(scores: Scores) -> str:
    """The few numbers that are said first."""
    means = scores.mean_over_frames()
    numbers = [
        (f"{format_value('psnr', means['psnr'])} dB", "PSNR, mean over frames", "PSNR，按帧平均"),
        (gain(means), "over the blurred input", "相对模糊输入"),
        (format_value("ssim", means.get("ssim")), "SSIM", "SSIM"),
        (format_value("lpips", means.get("lpips")), "LPIPS, lower is better", "LPIPS，越低越好"),
        (format_value("tof", means.get("tof")), "tOF in pixels, lower is better", "tOF（像素），越低越好"),
    ]
    figures = [
        f"<div><b>{html.escape(number.strip())}</b>{said('span', english, chinese)}</div>"
        for number, english, chinese in numbers
        if number
    ]
    return f'<div class="figures">{"".join(figures)}</div>'


def _method_tables(scores: Scores) -> str:
    """Tables of all methods, one for each of the two means."""
    scored = [m for m in METRICS if any(key_of(method, m) in scores.metrics() for method in scores.methods())]
    tables = []
    for kind, means, english, chinese in (
        (
            "mean_over_frames",
            scores.mean_over_frames(),
            "Every frame weighs the same, as in the paper's deblurring tables.",
            "每帧权重相同，与论文去模糊表格一致。",
        ),
        (
            "mean_over_clips",
            scores.mean_over_clips(),
            "Every clip weighs the same, as in KAIR's log.",
            "每个片段权重相同，与 KAIR 日志一致。",
        ),
    ):
        rows = []
        for method in scores.methods():
            cells = "".join(_cell(means, kind, key_of(method, metric), metric) for metric in scored)
            rows.append(f"<tr{'' if method else ' class=network'}>{said('th', scores.title(method))}{cells}</tr>")
        head = "".join(f"<th>{METRICS[metric]}</th>" for metric in scored)
        first = said("th", kind.replace("_", " "))
        tables.append(
            f'{said("p", english, chinese, "class=note")}<div class="scroll"><table><thead><tr>{first}{head}</tr>'
            f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
        )
    return section("Results", "结果", *tables)


def _clip_table(scores: Scores) -> str:
    """The clips, a line each, and both means: metric by metric, what was scored side by side."""
    columns = [
        ("psnr", ("input", "sdm", "charge", "")),
        ("ssim", ("input", "sdm", "charge", "")),
        ("lpips", ("",)),
        ("tof", ("",)),
        ("cvvdp", ("",)),
    ]
    groups = [(metric, [m for m in methods if key_of(m, metric) in scores.metrics()]) for metric, methods in columns]
    groups = [(metric, methods) for metric, methods in groups if methods]
    tops, heads = ["<th></th><th></th>"], [said("th", "clip"), said("th", "frames")]
    for metric, methods in groups:
        with_gain = metric == "psnr" and "input" in methods
        tops.append(f'<th colspan="{len(methods) + with_gain}"><span>{METRICS[metric]}</span></th>')
        heads += [said("th", scores.title(method)) for method in methods] + [said("th", "gain")] * with_gain
    counts: dict[str, int] = {}
    for row in scores.rows:
        counts[str(row["clip"])] = counts.get(str(row["clip"]), 0) + 1
    rows = []
    for clip, means in scores.clips().items():
        rows.append(f"<tr><th>{html.escape(clip)}</th><td>{counts[clip]}</td>{_clip_cells(groups, clip, means)}</tr>")
    for kind, means in (("over clips", scores.mean_over_clips()), ("over frames", scores.mean_over_frames())):
        name = f"mean {kind}"
        cells = _clip_cells(groups, name.replace(" ", "_"), means)
        rows.append(f'<tr class="mean">{said("th", name)}<td></td>{cells}</tr>')
    table = (
        f'<table id="clips"><thead><tr class="top">{"".join(tops)}</tr><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return section("Clips", "各片段", f'<div class="scroll">{table}</div>')


def _clip_cells(groups: Sequence[tuple[str, list[str]]], row: str, means: Mapping[str, float]) -> str:
    cells = []
    for metric, methods in groups:
        cells += [_cell(means, row, key_of(method, metric), metric) for method in methods]
        if metric == "psnr" and "input" in methods:
            cells.append(f'<td class="gain">{gain(means).removesuffix(" dB")}</td>')
    return "".join(cells)


def _cell(means: Mapping[str, float], row: str, key: str, metric: str) -> str:
    return f'<td data-row="{html.escape(row)}" data-key="{key}">{format_value(metric, means.get(key))}</td>'


def _comparisons(scores: Scores, gallery: Gallery) -> str:
    """A card per clip: slider, curve, exposure."""
    films = {clip: film_scrubber(film, scores) for clip, film in gallery.films.items()}
    views = {name: name for name in VIEWS}
    closer = {clip: zoom_panel() + profile_panel(gallery.profiles.get(clip), views, scores) for clip in gallery.shown}
    cards = [_card(clip, shown, scores, films.get(clip, ""), closer[clip]) for clip, shown in gallery.shown.items()]
    more = ""
    if gallery.left_out:
        more = said(
            "p",
            f"{len(gallery.left_out)} more clips have no pictures here; their panels are in panels/.",
            f"另有 {len(gallery.left_out)} 个片段未在此显示，图片见 panels/。",
        )
    return section(
        "Before and after",
        "前后对比",
        said(
            "p",
            "The middle frame of each clip. Drag the handle; choose what is on either side below it.",
            "每个片段的中间帧。拖动滑块对比，可在下方选择两侧内容。",
        ),
        *cards,
        more,
    )


def _card(clip: str, shown: ShownFrame, scores: Scores, film: str, closer: str) -> str:
    height, width = shown.size
    limit = f"max-width:min(100%,{min(4 * width, 1080)}px)"  # small pictures are enlarged, to be seen
    names = list(shown.views)
    before = "input" if "input" in names else names[0]

    def options(chosen: str) -> str:
        return "".join(
            said("option", _view(name, scores), attributes=f'value="{name}"{" selected" if name == chosen else ""}')
            for name in names
        )

    stores = "".join(f'<template data-view="{name}" data-src="{uri}"></template>' for name, uri in shown.views.items())
    values = scores.clips().get(clip, {})
    numbers = ""
    if "psnr" in values:
        mean = f"{format_value('psnr', values['psnr'])} dB"
        numbers = said("span", f"clip's mean {mean} {gain(values)}", f"片段平均 {mean} {gain(values)}")
    return (
        f'<article class="clip" data-clip="{html.escape(clip)}"><div class="bar"><h3>{html.escape(clip)}</h3>'
        f"<span>{html.escape(shown.frame)}</span>{numbers}</div>{stores}"
        f'<div class="body{" small" if width <= SMALL else ""}"><div>'
        f'<div class="stage" style="aspect-ratio:{width}/{height};{limit}"><img alt=""><img class="over" alt=""><i></i>'
        f'<input type="range" min="0" max="100" step="0.1" value="50" aria-label="before and after"></div>'
        f'<div class="pick" style="{limit}"><select aria-label="left">{options(before)}</select>'
        f'<select aria-label="right">{options("")}</select></div>'
        f'</div><div class="pair">{_curve(clip, scores)}{_player(shown)}</div></div>{film}{closer}</article>'
    )


def _view(name: str, scores: Scores) -> str:
    """Title of a picture."""
    return name if name in VIEWS else scores.title(name)


def _curve(clip: str, scores: Scores) -> str:
    """PSNR over the frames of a clip."""
    rows = [row for row in scores.rows if row["clip"] == clip]
    if not rows:
        return ""
    series = {
        name: [float(row[key_of(method, "psnr")]) for row in rows]
        for name, method in CURVES.items()
        if all(key_of(method, "psnr") in row for row in rows)
    }
    chart = line_chart(series, [str(row["frame"]) for row in rows])
    note = said("p", "PSNR of every frame, dB", "逐帧 PSNR(dB)", "class=note")
    return f"<div>{note}{_legend(series, scores)}{chart}</div>"


def _legend(series: Mapping[str, object], scores: Scores) -> str:
    colours = {"network": "network", "input": "input", "sdm": "free"}
    entries = [
        said("li", scores.title(CURVES[name]), attributes=f'style="--of:var(--{colours[name]})"') for name in series
    ]
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _player(shown: ShownFrame) -> str:
    """The exposure as the spikes saw it, instant after instant."""
    if shown.instants is None:
        return ""
    height, width = shown.instant_size
    note = said(
        "p",
        f"The exposure as the spikes saw it, in {shown.instant_count} instants",
        f"脉冲相机看到的曝光过程，{shown.instant_count} 个时刻",
        "class=note",
    )
    return (
        f'<div class="player">{note}<div style="--n:{shown.instant_count};aspect-ratio:{width}/{height};'
        f'background-image:url({shown.instants})"></div><label>{said("span", "instant", "时刻")}'
        f'<input type="range" min="0" max="{shown.instant_count - 1}" value="0"></label></div>'
    )


def _extremes(kind: str, of_clips: Mapping[str, Extreme], scores: Scores) -> str:
    """Crops of the frames with the lowest or highest PSNR, one per clip."""
    chosen = sorted(of_clips.values(), key=lambda extreme: extreme.psnr, reverse=kind == "best")[:EXTREMES]
    rows = []
    for extreme in chosen:
        crops = "".join(
            f'<figure><img src="{uri}" alt="">{said("figcaption", _view(name, scores))}</figure>'
            for name, uri in extreme.crops.items()
        )
        rows.append(
            f'<div class="bar"><h3>{html.escape(extreme.clip)}</h3><span>{html.escape(extreme.frame)}</span>'
            f"<span>PSNR {format_value('psnr', extreme.psnr)} dB</span></div>"
            f'<div class="crops" style="--columns:{len(extreme.crops)}">{crops}</div>'
        )
    if kind == "worst":
        where = "One frame per clip, cut where it is farthest from the sharp one.", "每个片段一帧，取与真值差异最大处。"
        return section("Worst frames", "最差帧", said("p", *where), *rows)
    where = "One frame per clip, cut where the input is farthest from the sharp one.", "每个片段一帧，取模糊最强处。"
    return section("Best frames", "最佳帧", said("p", *where), *rows)


def _sweep(sweep: Sweep) -> str:
    """PSNR with spikes made worse: a chart and a table per kind."""
    parts = []
    for kind in sweep.kinds():
        rows = sweep.of(kind)
        labels = list(dict.fromkeys(f"{row.value:g}" for row in rows))
        lines = {name: sweep.line(kind, name) for name in sweep.lines(kind)}
        colours = {"network": "network", "told": "told", "sdm": "sdm"}
        chart = line_chart({colours[name]: values for name, values in lines.items()}, labels)
        head = "".join(said("th", *SWEEP_LINES[name]) for name in lines)
        body = "".join(
            f"<tr><th>{label}</th>{''.join(f'<td>{values[index]:.2f}</td>' for values in lines.values())}</tr>"
            for index, label in enumerate(labels)
        )
        legend = "".join(said("li", *SWEEP_LINES[name], f'style="--of:var(--{SWEEP_COLOURS[name]})"') for name in lines)
        parts.append(
            f'<div data-sweep="{kind}">{said("h3", *SWEEP_KINDS[kind])}<ul class="legend">{legend}</ul>{chart}'
            f'<div class="scroll"><table><thead><tr>{said("th", "value", "取值")}{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div></div>"
        )
    note = (
        "PSNR in dB, mean over frames, of the same network with other spikes.",
        "同一网络在不同脉冲条件下的 PSNR（dB，按帧平均）。",
    )
    return section(
        "Robustness to the spikes", "对脉冲的鲁棒性", said("p", *note), f'<div class="sweeps">{"".join(parts)}</div>'
    )


def _notes() -> str:
    """Explanation of the metrics."""
    entries = "".join(f"<dt>{term}</dt>{said('dd', english, chinese)}" for term, english, chinese in DEFINITIONS)
    return section("What the numbers mean", "指标说明", f"<dl>{entries}</dl>")
