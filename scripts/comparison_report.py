"""What a comparison found, as a section of a Markdown file and a figure of crops side by side.

A section lies between comments with its name: a later run of that name replaces it, others stay as they are.
"""

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from utils.utils_file import atomic_write
from utils.utils_image import imwrite_rgb, most_different, panel

HEADING = """# Results

Each section is written by the command at its top, which prints the same tables; running it again replaces the section.
"""
CROP = 96  # side of the figure's crops in pixels


@dataclass(frozen=True)
class Row:
    """A network of the table.

    Attributes:
        psnr, ssim: means over all frames of the held-out clips.
        parameters: of the network.
        seconds: median of a training step.
        memory: peak while training in GB, None where unknown.
        spikes: what it is given of them.
    """

    title: str
    psnr: float
    ssim: float
    parameters: int
    seconds: float
    memory: float | None
    spikes: str


@dataclass(frozen=True)
class Comparison:
    """Everything that a section says.

    Attributes:
        name: of the section.
        command: what made it.
        settings: sentences on data, training and machine.
        input_psnr, input_ssim: of the blurred frames.
        rows: a row per network, RGB only first.
        ablation: PSNR by what was done to the spikes and by network; "intact" first.
        figure: path of the picture, as seen from the Markdown file.
    """

    name: str
    command: str
    settings: Sequence[str]
    input_psnr: float
    input_ssim: float
    rows: Sequence[Row]
    ablation: Mapping[str, Mapping[str, float]]
    figure: str


def markdown(found: Comparison) -> str:
    """The section, without its markers."""
    titles = " | ".join(["input", *(row.title for row in found.rows), "sharp"])
    parts = [
        f"## RGB only, concat, voxel: {found.name}",
        f"```bash\n{found.command}\n```",
        "\n".join(f"- {sentence}" for sentence in found.settings),
        branch_table(found),
        f'<img src="{found.figure}" width="960" alt="{titles}">',
        f"Held-out clips, the place that is blurred most: {titles}.",
        "What the trained networks owe to the spikes: the same weights, tested with spikes made worse "
        "(`data/spike/perturb.py`). PSNR in dB, and the change against intact spikes.",
        ablation_table(found),
    ]
    return "\n\n".join(parts) + "\n"


def branch_table(found: Comparison) -> str:
    """The networks side by side."""
    base = found.rows[0].psnr
    lines = [
        "| | PSNR, dB | SSIM | over the input | over RGB only | parameters | seconds per step | peak memory |",
        "|---|---|---|---|---|---|---|---|",
        f"| blurred input | {found.input_psnr:.2f} | {found.input_ssim:.4f} | | | | | |",
    ]
    for row in found.rows:
        gains = f"{row.psnr - found.input_psnr:+.2f} | {row.psnr - base:+.2f}"
        memory = "not known" if row.memory is None else f"{row.memory:.2f} GB"
        lines.append(
            f"| {row.title} | {row.psnr:.2f} | {row.ssim:.4f} | {gains} | {row.parameters:,} | {row.seconds:.3f} "
            f"| {memory} |"
        )
    return "\n".join(lines)


def ablation_table(found: Comparison) -> str:
    """PSNR with spikes made worse."""
    titles = list(found.ablation["intact"])
    head = "| spikes | " + " | ".join(f"{title} | change" for title in titles) + " |"
    lines = [head, "|---" * (1 + 2 * len(titles)) + "|"]
    for label, psnr in found.ablation.items():
        cells = [f"{psnr[title]:.2f} | {psnr[title] - found.ablation['intact'][title]:+.2f}" for title in titles]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def put_section(path: Path, name: str, section: str) -> None:
    """Puts a section into the file, in place of the one of that name or at the end."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    text = path.read_text(encoding="utf-8") if path.exists() else HEADING
    # Empty lines, so that a table at the end does not run on.
    marked = f"{begin}\n\n{section}\n{end}\n"
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}\n", re.DOTALL)
    # A function, because a replacement's backslashes would be read as groups.
    text = pattern.sub(lambda _: marked, text) if pattern.search(text) else f"{text.rstrip()}\n\n{marked}"
    with atomic_write(path) as file:
        file.write(text)


def write_figure(path: Path, clips: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Writes crops side by side, a row per clip.

    Args:
        clips: pictures (H,W,3) of a frame by title; among them "input" and "sharp".
    """
    rows = []
    for pictures in clips:
        top, left, height, width = most_different(pictures["input"], pictures["sharp"], CROP)
        crops = [(title, picture[top : top + height, left : left + width]) for title, picture in pictures.items()]
        rows.append(panel(crops))
    imwrite_rgb(path, np.concatenate(rows))


def machine() -> str:
    """The device that computes, and torch's version."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def cpu_name() -> str:
    """The processor's name as far as the system tells it."""
    path = Path("/proc/cpuinfo")
    found = (
        re.search(r"^model name\s*: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) if path.exists() else None
    )
    return found[1].strip() if found else platform.processor() or platform.machine()
