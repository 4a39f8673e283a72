"""The frozen benchmark of restoration: every competitor restores the same clips and is scored by the same protocol.

    python -m scripts.benchmark_restoration --shipped guided
    python -m scripts.benchmark_restoration --opt options/demo/quickstart.json --name concat \\
        --module mine.network:build --name mine --pictures results/other --name other --clips walk 2 sets/walk

Restores the clips of data/meta_info/benchmark_restoration.json (made below --root where they are missing, and checked
by their SHA-256), and those of --clips. Competitors are the blurred frames, the training-free restorations, and those
named; --name is that of the competitor before it. Prints tables with 95 % intervals (bootstrap over scenes), and
writes them as a section of --output and everything as one JSON file. A picture that is missing, has another size or is
not a number ends it with code 2; so does a test frame that a training of --audit shows. docs/benchmark.md explains.
"""

import argparse
import json
import logging
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import benchmark_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(benchmark_parser(__doc__ or ""))

import numpy as np
import torch

from data.spike.simulation.benchmark_set import Protocol
from scripts.benchmark.benchmark_clips import audit, check_frozen, digests, freeze, frozen_clips, named_clips, read_list
from scripts.benchmark.benchmark_tables import Clips, Result, competitor_table, factor_table, speed_table, summary
from scripts.benchmark.competitors import (
    Blurred,
    Charge,
    ClipFolder,
    Competitor,
    ModuleNetwork,
    OptionNetwork,
    Pictures,
    TrainingFree,
)
from scripts.comparison_report import machine, put_section
from utils.evaluation.origin import commit
from utils.evaluation.report import find_lpips
from utils.evaluation.scorer import Scorer
from utils.evaluation.video_metric import CVVDP
from utils.user_error import UserError
from utils.utils_cli import run_command, without_secrets
from utils.utils_dist import device_called
from utils.utils_file import atomic_write
from utils.utils_image import to_8_bits
from utils.utils_memory import peak_memory, reset_peak, used_memory
from utils.utils_progress import progress

Build = Callable[[], Competitor]
FREE: tuple[type[Blurred], ...] = (Blurred, TrainingFree, Charge)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code: 0 done, 2 a mistake in what was asked for."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    argv = sys.argv[1:] if argv is None else argv
    arguments = benchmark_parser(__doc__ or "").parse_args(argv)
    arguments.command = shlex.join(["python", "-m", "scripts.benchmark_restoration", *without_secrets(argv)])
    return run_command(lambda: benchmark(arguments))


def benchmark(arguments: argparse.Namespace) -> None:
    """Everything that can be wrong with clips and competitors is found before anything is restored.

    Raises:
        UserError: clips, competitors or their results can't be used.
    """
    protocol, tree = read_list(arguments.list)
    folders = [] if arguments.only_clips else frozen_clips(protocol, arguments.root)
    found = digests(folders)
    if arguments.freeze is not None:
        freeze(arguments.freeze, tree["protocol"], found)
        print(f"{len(found)} clips: {arguments.freeze}")
        return
    check_frozen(arguments.list, tree, found)
    named = [named_clips(words) for words in arguments.clips]
    found |= digests(named)
    folders += named
    if not folders:
        raise UserError("--only_clips leaves no clips; name some with --clips")
    shared = [audit(folders, path) for path in arguments.audit]
    device = device_called(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    competitors = competitors_of(arguments.competitors, device)
    lpips, _ = find_lpips(arguments.lpips) if arguments.lpips else (None, "")
    video = CVVDP(device) if arguments.cvvdp else None
    results = [run(build, folders, protocol, device, lpips and lpips.to(device), video) for build in competitors]
    clips = clips_of(folders)
    settings = {
        "command": arguments.command,
        "commit": commit(),
        "machine": machine(),
        "cpu": device.type == "cpu",
        "protocol": tree["protocol"],
        "sha256": found,
        "audit": shared,
    }
    with atomic_write(arguments.json) as file:
        json.dump(summary(results, clips, settings), file, indent=1, allow_nan=False, ensure_ascii=False)
    text = markdown(results, clips, settings)
    put_section(arguments.output, arguments.section, text)
    print(f"{text}\nthe same: {arguments.output}; all numbers: {arguments.json}")


def competitors_of(named: Sequence[Sequence[Any]], device: torch.device) -> list[Build]:
    """What builds each competitor; built one at a time, so that one's memory is not another's.

    Raises:
        UserError: two of one name.
    """

    def build(kind: str, words: Any, name: str | None) -> Competitor:
        if kind == "shipped":
            return OptionNetwork(name or words, ["--task", words], device)
        if kind == "opt":
            file, *checkpoint = words
            flags = ["--opt", file, *(["--checkpoint", *checkpoint] if checkpoint else [])]
            return OptionNetwork(name or Path(file).stem, flags, device)
        if kind == "module":
            return ModuleNetwork(name or words, words, device)
        return Pictures(name or words.name, words)

    names = [name or default_name(kind, words) for kind, words, name in named]
    twice = {name for name in names if names.count(name) > 1 or name in [competitor.name for competitor in FREE]}
    if twice:
        raise UserError(f"{', '.join(sorted(twice))}: two competitors of one name; give another with --name")
    return [*FREE, *(lambda each=each: build(*each) for each in named)]


def default_name(kind: str, words: Any) -> str:
    """A competitor's name where none is given."""
    return {"opt": lambda: Path(words[0]).stem, "pictures": lambda: str(words.name)}.get(kind, lambda: str(words))()


def run(
    build: Build,
    folders: Sequence[ClipFolder],
    protocol: Protocol,
    device: torch.device,
    lpips: Any,
    video: CVVDP | None,
) -> Result:
    """Restores and scores all clips.

    Raises:
        UserError: a picture is missing, not a number, or has another size than the sharp one.
    """
    # A CPU's own time does not depend on what else it does; on a GPU frames come back to the CPU, which waits for them.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    before = None
    with suppress(OSError, UserError):  # a CPU's memory is known on Linux only
        reset_peak(device)
        before = used_memory(device)
    competitor = build()
    result = Result(competitor.name, competitor.origin)
    seconds, frames = 0.0, 0
    opened = [(folder, folder.reference()) for folder in folders]
    total = sum(len(clip) for _, clips in opened for clip in clips.clips)
    with Scorer(lpips, workers=0, video=video) as scorer, progress(total, competitor.name, "frame") as bar:
        for folder, reference in opened:
            own = competitor.open(folder)
            for index, clip in enumerate(reference.clips):
                pictures = []
                begin = clock()
                for picture in competitor.restore(own, index):
                    pictures.append(picture)
                    bar.update()
                seconds += clock() - begin
                frames += len(clip)
                score_clip(f"{folder.group}/{clip.name}", reference, index, pictures, protocol, scorer, result)
        result.scores = scorer.scores
    if competitor.computes:
        result.seconds = seconds / frames
        result.memory = None if before is None else max(0, peak_memory(device) - before)
    return result


def score_clip(
    name: str,
    reference: Any,
    index: int,
    pictures: Sequence[tuple[str, np.ndarray]],
    protocol: Protocol,
    scorer: Scorer,
    result: Result,
) -> None:
    """Checks and scores a clip's pictures."""
    clip = reference.clips[index]
    sharp = to_8_bits(reference.pairs.read_gt(clip.name, list(clip.frames)))  # (T,H,W,3) uint8
    if [frame for frame, _ in pictures] != list(clip.frames):
        raise UserError(f"{result.name}: {name} has {len(pictures)} restored frames; all {len(clip)} are needed")
    inner = slice(protocol.border, -protocol.border or None)
    for number in protocol.scored(len(clip)):
        frame, picture = pictures[number]
        if picture.shape != sharp[number].shape:
            raise UserError(
                f"{result.name}: {name}/{frame} is {picture.shape[0]}x{picture.shape[1]}, the sharp frame "
                f"{sharp[number].shape[0]}x{sharp[number].shape[1]}"
            )
        cut = np.ascontiguousarray(sharp[number][inner, inner])
        restored = np.ascontiguousarray(picture[inner, inner])
        scorer.add(name, frame, cut, {"": restored})
        if number > protocol.first_frames:
            result.speeds.add(restored, cut, np.ascontiguousarray(sharp[number - 1][inner, inner]))


def clips_of(folders: Sequence[ClipFolder]) -> Clips:
    """What the clips show and were recorded with. Clips `<name>_<n>_<part>` of one name show the same scene."""
    sources, factors = {}, {}
    for folder in folders:
        for clip in folder.reference().clips:
            name = f"{folder.group}/{clip.name}"
            sources[name], factors[name] = re.sub(r"_\d+_\d+$", "", clip.name), folder.factors
    return Clips(sources, factors)


def markdown(results: Sequence[Result], clips: Clips, settings: dict[str, Any]) -> str:
    """The tables and what has to be known to read them."""
    audits = "; ".join(
        f"{found['training']} ({found['frames']} frames): none in common, the nearest "
        f"{found['least distance in bits']} of 64 bits away"
        for found in settings["audit"]
    )
    facts = [
        f"Machine: {settings['machine']}; seconds {'of the processor' if settings['cpu'] else 'on the GPU'}, "
        "reading and spike channels included.",
        f"{len(clips.sources)} clips of {len(set(clips.sources.values()))} scenes; brackets: 95 % by bootstrap over "
        "scenes.",
        *([f"Audit by perceptual hash: {audits}."] if audits else []),
    ]
    return "\n\n".join(
        [
            "## The restoration benchmark",
            f"```bash\n{settings['command']}\n```",
            "\n".join(f"- {fact}" for fact in facts),
            competitor_table(results, clips),
            "Mean PSNR over the clips that were recorded with each value:",
            factor_table(results, clips),
            "PSNR of patches of 16 x 16 pixels, by the speed at which the sharp scene moves there:",
            speed_table(results) + "\n",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
