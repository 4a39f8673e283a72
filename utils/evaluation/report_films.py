"""Parts of the report page about instants: the film inside an exposure beside the blurred frame, PSNR by instant."""

import html
import json

from utils.evaluation.chart import line_chart
from utils.evaluation.report_gallery import Film
from utils.evaluation.report_text import said, section
from utils.evaluation.scores import METHODS, Scores, format_value, key_of

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
