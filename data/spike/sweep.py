"""The conditions of a sweep: tests of a network on the same clips with spikes of another or a worse camera.

    conditions(["threshold=1,2,4", "drop=0.1,1"], opt.datasets.test)

threshold=V: a camera with threshold V (the set's own is `spike_threshold`). Spikes for a whole multiple are computed
from the recorded ones (`data/spike/perturb.py`); for other thresholds the set is simulated again, so it must have been
simulated from photographs (`simulation.json`). Each threshold is tested twice. "Not told": the input is still scaled by
the set's own threshold, so its brightness changes. "Told": the input is scaled by V. shift, drop and noise are those
of `perturb.py`; drop=1 removes all spikes.
"""

import filecmp
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from data.spike.perturb import THRESHOLD, build_perturbation
from data.spike.simulation.demo_set import DemoSet
from data.spike.simulation.gopro_layout import MANIFEST, PICTURES, SPIKES
from utils.evaluation.sweep import Condition
from utils.user_error import UserError
from utils.utils_file import read_json

KINDS = (THRESHOLD, "shift", "drop", "noise")  # in the order in which a message lists them
EXAMPLE = "threshold=1,2,4"  # half, same and double threshold of the GoPro set; in messages and help
SIMULATOR = "scripts.data_preparation.simulate_dataset"  # the command named in messages
# The parameters of a set that a simulation with another threshold takes over, beside its size.
REPEATED = ("train_clips", "test_clips", "train_frames", "test_frames", "n", "stride", "seed", "spike_ratio", "light")


class SpikeSection(Protocol):
    """The options `datasets.test` of a set with spikes."""

    def arguments(self) -> dict[str, Any]:
        """The data set's keyword arguments."""


def conditions(specs: Sequence[str], section: SpikeSection) -> list[Condition]:
    """All conditions of a sweep, `KIND=VALUE,VALUE,...` each; may simulate spikes.

    Raises:
        UserError: a spec of another form, a set without spikes, or spikes that can't be computed or simulated.
    """
    options = section.arguments()
    if "spike_perturb" not in options:
        raise UserError("--sweep: the test set has no spikes; name them in the option file or by --folder_spike")
    if options["dataroot_gt"] is None:
        raise UserError("--sweep: no scores can be computed without sharp frames; give --folder_gt")
    if options["spike_perturb"] is not None:
        raise UserError("--sweep: datasets.test.spike_perturb is set; remove it, as the sweep sets it")
    found = []
    for kind, values in map(parse_spec, specs):
        for value in values:
            if kind == THRESHOLD:
                found += _with_threshold(value, options)
            else:
                perturb = {"kind": kind, "amount": value}
                build_perturbation(perturb)
                origin = "as recorded" if value == 0 else "perturbed"
                found.append(Condition(kind, value, False, origin, {"spike_perturb": perturb} if value else {}))
    return found


def parse_spec(spec: str) -> tuple[str, list[float]]:
    """Kind and values of a specification like drop=0.1,1."""
    kind, _, listed = spec.partition("=")
    try:
        values = [float(value) for value in listed.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise UserError(f"--sweep {spec}: numbers are needed, as in {EXAMPLE}")
    if kind not in KINDS:
        raise UserError(f"--sweep {spec}: {kind!r} is unknown; choices: {', '.join(KINDS)}")
    return kind, list(dict.fromkeys(values))


def _with_threshold(value: float, options: dict[str, Any]) -> list[Condition]:
    """Two conditions for a threshold: the network's input is scaled by the set's own threshold, and by this one."""
    own = options["spike_threshold"]
    if not value > 0:
        raise UserError(f"--sweep threshold={value:g}: a threshold above 0 is needed")
    factor = value / own
    changes: dict[str, Any] = {}
    origin = "as recorded"
    if factor >= 1 and factor == int(factor):
        if factor > 1:
            changes, origin = {"spike_perturb": {"kind": THRESHOLD, "amount": factor}}, f"one spike in {factor:g}"
    else:
        changes, origin = {"dataroot_spike": str(simulated_anew(Path(options["dataroot_spike"]), value))}, "simulated"
    told = {**changes, "spike_threshold": value} if changes else {}
    return [Condition(THRESHOLD, value, False, origin, changes), Condition(THRESHOLD, value, True, origin, told)]


def simulated_anew(dataroot_spike: Path, threshold: float) -> Path:
    """The spike data root of the same scenes with another threshold; simulated if missing.

    The new set is written beside the old one, as <set>_threshold_<value>.

    Raises:
        UserError: the set was not simulated from photographs, or its simulation can't be repeated.
    """
    reason = f"--sweep threshold={threshold:g}: from recorded spikes, only whole multiples of their threshold follow"
    root = next((parent for parent in dataroot_spike.resolve().parents if (parent / MANIFEST).is_file()), None)
    if root is None:
        raise UserError(f"{reason}, and {dataroot_spike} is no simulated set")
    manifest = read_json(root / MANIFEST)
    parameters = manifest.get("parameters") if isinstance(manifest, dict) else None
    photographs = isinstance(parameters, dict) and parameters.get("kind") == "photographs"
    if not isinstance(parameters, dict) or (photographs and not {*REPEATED, "size"} <= parameters.keys()):
        raise UserError(f"{reason}, and {root / MANIFEST} lacks the set's parameters; simulate the set again")
    if not photographs:
        raise UserError(
            f"{reason}, and {root} was made from videos: simulate it by python -m {SIMULATOR} with "
            f"--threshold {threshold:g} and another --root, and test with the new set"
        )
    target = root.with_name(f"{root.name}_{THRESHOLD}_{threshold:g}")
    repeated = {name: parameters[name] for name in REPEATED}
    DemoSet(**repeated, size=tuple(parameters["size"]), threshold=threshold).write(target)
    before, after = (sorted((folder / PICTURES).rglob("*.png")) for folder in (root, target))
    same = [path.relative_to(root) for path in before] == [path.relative_to(target) for path in after]
    if not same or not filecmp.cmp(before[-1], after[-1], shallow=False):
        raise UserError(
            f"{reason}, and the scenes of {target} and {root} differ, as one was made by an older version: "
            "simulate both again"
        )
    return target / SPIKES / dataroot_spike.resolve().relative_to(root / SPIKES)
