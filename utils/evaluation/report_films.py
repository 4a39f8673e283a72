"""Parts of the report page about instants: the film inside an exposure, PSNR by instant, how far to trust it.

The page's script moves the film.
"""

import html
import json

from utils.evaluation.chart import line_chart
from utils.evaluation.report_gallery import Film
from utils.evaluation.report_text import said, section
from utils.evaluation.scores import METHODS, Scores, format_value, key_of
from utils.evaluation.trust import PAINTED
from utils.evaluation.trust_meter import COLUMNS, TrustMeter, shown

CURVES = {"input": "input", "sdm": "sdm", "network": ""}
"""CSS name of a curve's colour, and the method it shows."""
COLOURS = {"network": "network", "input": "input", "sdm": "free"}


def film_scrubber(film: Film, scores: Scores) -> str:
    """The blurred frame beside its restored instants, with a slider through the exposure.

    The page's script shows picture number n of each figure and what its `data-captions` say of the instant.
    """
    height, width = film.size
    shape = f'style="aspect-ratio:{width}/{height}"'
    figures = [f'<figure><img {shape} src="{film.blurred}" alt="">{said("figcaption", METHODS["input"])}</figure>']
    for method, pictures in film.views.items():
        stores = "".join(f'<template data-src="{uri}"></template>' for uri in pictures)
        figures.append(f'<figure>{stores}<img {shape} alt="">{said("figcaption", scores.title(method))}</figure>')
    captions = html.escape(json.dumps([f"t = {time:.3g}" for time in film.times]))
    note = said(
        "p",
        f"Inside the exposure: {len(film.times)} instants restored from one blurred frame. Drag the slider.",
        f"曝光过程之内：由一帧模糊图像复原的 {len(film.times)} 个时刻。拖动滑块查看。",
        "class=note",
    )
    return (
        f'<div class="film" data-captions="{captions}">{note}<div class="crops" style="--columns:{len(figures)}">'
        f'{"".join(figures)}</div><label>{said("span", "instant", "时刻")}<input type="range" min="0" '
        f'max="{len(film.times) - 1}" value="{len(film.times) // 2}"><output></output></label></div>'
    )


def instants_section(scores: Scores) -> str:
    """PSNR at every instant that has a sharp picture: a chart and a table."""
    instants = scores.instants()
    curves = {
        name: method
        for name, method in CURVES.items()
        if all(key_of(method, "psnr") in means for means in instants.values())
    }
    series = {name: [means[key_of(method, "psnr")] for means in instants.values()] for name, method in curves.items()}
    legend = "".join(
        said("li", scores.title(method), attributes=f'style="--of:var(--{COLOURS[name]})"')
        for name, method in curves.items()
    )
    head = "".join(said("th", scores.title(method)) for method in curves.values())
    rows = "".join(
        f"<tr><th>{time}</th>"
        + "".join(f"<td>{format_value('psnr', means[key_of(method, 'psnr')])}</td>" for method in curves.values())
        + "</tr>"
        for time, means in instants.items()
    )
    return section(
        "Over the exposure",
        "曝光过程中的各时刻",
        said(
            "p",
            "PSNR in dB at every instant that has a sharp picture, mean over frames; 0 is the exposure's beginning.",
            "有清晰真值的各时刻的 PSNR（dB，按帧平均）；0 为曝光开始。",
        ),
        f'<div class="sweeps"><div><ul class="legend">{legend}</ul>{line_chart(series, list(instants))}</div>'
        f'<div class="scroll"><table><thead><tr>{said("th", "instant", "时刻")}{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></div>",
    )


def trust_section(trust: TrustMeter) -> str:
    """How far the restored exposures agree with blurred frames and spikes, a line per clip."""
    titles = {
        "reblur_psnr": "再模糊 PSNR",
        "spike_ll": "脉冲对数似然",
        "rate_ll": "自身发放率的对数似然",
        "gain": "脉冲增益",
        "painted": "矛盾像素",
    }
    head = "".join(said("th", title, titles[name]) for name, (title, _) in COLUMNS.items())
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th>{''.join(f'<td>{number}</td>' for number in shown(means))}</tr>"
        for name, means in trust.clips_means().items()
    )
    return section(
        "How far to trust it",
        "可信程度",
        said(
            "p",
            "The restored instants, blurred again, against the blurred frame (PSNR in dB), and the recorded spikes "
            "under their light against the spikes' own rate (log-likelihood per pixel in nats). No sharp frame is "
            f"used. A pixel contradicts where they disagree by more than {PAINTED:g} of white: the view "
            "“contradiction” below. A gain far from 1 says that the threshold is another one.",
            "将复原的各时刻重新模糊后与模糊帧比较（PSNR，dB）；并比较记录的脉冲在复原亮度下与在自身发放率下的对数似然（每像素，"
            f"nat）。无需清晰真值。两者相差超过白电平 {PAINTED:g} 倍的像素视为矛盾，见下方“矛盾图”。增益明显偏离 1 "
            "说明阈值设置有误。",
        ),
        f'<div class="scroll"><table id="trust"><thead><tr>{said("th", "clip")}{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>",
    )
