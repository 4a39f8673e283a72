"""Finds all missing files of an option file before anything is read or built, and reports them in one message.

    check_files(opt)      # UserError: missing data roots, meta info files and weights, and how to obtain them

Test: `python -m pytest tests/data/test_missing_files.py`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data.preparations import preparation_of, remedies
from utils.user_error import UserError
from utils.utils_download import RELEASE_PAGE, download
from utils.utils_option import Options

SPYNET = "spynet_sintel_final-3d2a1287.pth"
WEIGHTS = {
    "netG.spynet_path": f"{SPYNET} of {RELEASE_PAGE}; --download fetches it, null: flow starts untrained",
    "path.pretrained_netG": f"a checkpoint; those of model_zoo/vrt are of {RELEASE_PAGE}; null starts without",
    "path.pretrained_netE": "a checkpoint of a moving average; null starts without",
    "train.vgg_path": "torchvision's weights of VGG; null lets torchvision fetch them",
}
"""Options that name weights, and the file expected there."""


def missing_weights(opt: Options) -> list[tuple[str, str]]:
    """Options of weights whose files are missing, and these files; null needs none, "" is a missing file."""
    named = {name: getattr(getattr(opt, name.split(".")[0]), name.split(".")[1], None) for name in WEIGHTS}
    return [(name, path) for name, path in named.items() if path is not None and not (path and Path(path).exists())]


def fetch_weights(opt: Options, base_url: str) -> None:
    """Downloads SpyNet's weights from `base_url` to where the options expect them, if they are missing there.

    Raises:
        UserError: the download failed; the message says how to do it by hand.
    """
    for option, path in missing_weights(opt):
        if option == "netG.spynet_path" and Path(path).name == SPYNET:
            download(f"{base_url.rstrip('/')}/{SPYNET}", Path(path))


def missing_data(opt: Options, phases: Sequence[str] = ("train", "test")) -> Iterator[tuple[str, str, str]]:
    """Options of missing data roots and meta info files, their paths, and the data root they belong to."""
    for phase in phases:
        section = getattr(opt.datasets, phase)
        named = {} if section is None else section.arguments()
        for key, value in named.items():
            is_root = key.startswith("dataroot")
            if not (is_root or key == "meta_info_file") or not isinstance(value, str) or not value:
                continue
            if not Path(value).expanduser().exists():
                # The preparation of the section's frames also writes the meta info file.
                frames = [named[side] for side in ("dataroot_gt", "dataroot_lq") if named.get(side)]
                root = value if is_root else next((root for root in frames if preparation_of(root)), value)
                yield f"datasets.{phase}.{key}", value, root


def check_files(opt: Options, phases: Sequence[str] = ("train", "test"), weights: bool = True) -> None:
    """Checks that all files that the options name exist.

    Args:
        phases: the `datasets` sections to check.
        weights: whether weights are needed; a resumed run has them in its checkpoint.

    Raises:
        UserError: files are missing; the message lists all of them and how to obtain them.
    """
    data, files = list(missing_data(opt, phases)), missing_weights(opt) if weights else []
    if not data and not files:
        return
    listed = [f"{option}: {path} does not exist" for option, path, _ in data]
    listed += [f"{option}: {path or repr(path)} does not exist; it is {WEIGHTS[option]}" for option, path in files]
    advice = remedies(root for *_, root in data) if data else []
    if any("all_clips" in getattr(opt.datasets, option.split(".")[1]).arguments() for option, *_ in data):
        advice.append("KAIR's data/meta_info has Vimeo-90K's list of test clips; --all_clips needs no list.")
    raise UserError("".join(["Files that the options name are missing:", *(f"\n  {line}" for line in listed + advice)]))
