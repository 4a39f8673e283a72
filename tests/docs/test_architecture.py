"""docs/architecture.md: its shapes against the running networks, its numbers against the recipes, its code runs."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import data.select_dataset  # noqa: F401  registers by being imported
from models.layers.ops.linear import zero_start
from models.select_network import define_G
from utils.utils_option import Options, load_options
from utils.utils_registry import FUSIONS, NETWORKS

Shape = tuple[int, ...]
RECIPES = {
    branch: f"006_train_vrt_videodeblurring_gopro_rgbspike{end}"
    for branch, end in (("concat", ""), ("voxel", "_voxel"))
}
SMALL: dict[str, Any] = {
    "upscale": 1,
    "img_size": [4, 16, 24],
    "window_size": [4, 8, 8],
    "depths": [1] * 11,
    "indep_reconsts": [9, 10],
    "embed_dims": [8] * 7 + [12] * 4,
    "num_heads": [2] * 11,
    "deformable_groups": 4,
}
# As different as can be, so that no formula is right by chance.
SYMBOLS = {"B": 2, "T": 4, "H": 16, "W": 24, "S": 5, "K": 7, "R": 2, "C": 8, "D": 12}


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "architecture.md").read_text(encoding="utf-8")


def table(page: str, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without code marks and without its first two lines."""
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]


def shape(formula: str, symbols: dict[str, int]) -> Shape:
    return eval(formula.replace("/", "//"), {"__builtins__": {}}, symbols)


def recipe(repository: Path, branch: str) -> Options:
    return load_options(repository / "options" / "vrt" / f"{RECIPES[branch]}.json", ["netG.spynet_path=null"])


def gopro_symbols(page: str) -> dict[str, int]:
    return {
        name.strip(): int(value)
        for names, _, values in table(page, "Symbols")
        for name, value in zip(names.split(","), values.split(","), strict=True)
    }


def run(network: nn.Module, modules: list[str], *inputs: Tensor) -> list[tuple[str, Shape, Shape]]:
    """(module, shape received, shape given) in running order, a list's results one by one as `module[i]`."""
    seen: list[tuple[str, Shape, Shape]] = []

    def hook(name: str, args: tuple[Tensor, ...], result: Tensor | list[Tensor]) -> None:
        several = not isinstance(result, Tensor)
        for i, each in enumerate(result if several else [result]):
            seen.append((f"{name}[{i}]" if several else name, tuple(args[0].shape), tuple(each.shape)))

    for name in dict.fromkeys(name.partition("[")[0] for name in modules):
        network.get_submodule(name).register_forward_hook(lambda _, args, result, name=name: hook(name, args, result))
    with torch.no_grad():
        network.eval()(*inputs)
    return seen


def clip(channels: str, ratio: int = 1) -> Tensor:
    height, width = SYMBOLS["H"] // ratio, SYMBOLS["W"] // ratio
    return torch.rand(SYMBOLS["B"], SYMBOLS["T"], shape(channels, SYMBOLS), height, width)  # type: ignore[arg-type]


def expected(rows: list[list[str]]) -> list[tuple[str, Shape, Shape]]:
    return [(name, shape(receives, SYMBOLS), shape(gives, SYMBOLS)) for name, receives, gives, _ in rows]


def test_voxel_branch_runs_as_the_table_says(page: str) -> None:
    rows = table(page, "Every step of the voxel branch")
    network = NETWORKS.get("vrt_spike")(**SMALL, spike_bins=SYMBOLS["K"], spike_ratio=SYMBOLS["R"])
    assert run(network, [row[0] for row in rows], clip("3"), clip("K", SYMBOLS["R"])) == expected(rows)
    # The table leaves out nothing but parts of its rows, normalisation, and what has no weights.
    named = tuple(row[0].partition("[")[0] for row in rows)
    remaining = {name.rpartition(".")[0] for name, _ in network.named_parameters() if not name.startswith(named)}
    assert remaining == {"vrt.norm"}


def test_concat_branch_runs_as_the_table_says(page: str) -> None:
    wide = {row[0]: row for row in table(page, "Every step of the concat branch")}
    rows = []
    for row in table(page, "Every step of the voxel branch"):
        if row[0].startswith("vrt."):
            name = row[0].removeprefix("vrt.")
            rows.append(wide.pop(name, [name, *row[1:]]))
    assert not wide
    network = NETWORKS.get("vrt")(**SMALL, in_chans=3 + SYMBOLS["S"])
    assert run(network, [row[0] for row in rows], clip("3+S")) == expected(rows)


def test_gopro_column_and_symbols_are_the_recipes(page: str, repository: Path) -> None:
    symbols = gopro_symbols(page)
    assert symbols.keys() == SYMBOLS.keys()
    for branch in RECIPES:
        for *_, gives, gopro in table(page, f"Every step of the {branch} branch"):
            assert shape(gives, symbols) == shape(gopro, {})
        opt = recipe(repository, branch)
        train, net = opt.datasets.train, opt.netG.arguments()
        assert train is not None
        assert (train.num_frame, train.gt_size, train.gt_size) == tuple(symbols[key] for key in "THW")
        assert [net["embed_dims"][i] for i in (0, -1)] == [symbols["C"], symbols["D"]]
        if branch == "voxel":
            assert (net["spike_bins"], net["spike_ratio"]) == (symbols["K"], symbols["R"])
        else:
            assert net["in_chans"] == 3 + symbols["S"]


def test_branches_are_chosen_as_stated(page: str, repository: Path) -> None:
    rows: dict[str, list[str]] = {}
    for line in page.split("\n## ")[0].splitlines():
        if line.startswith("| "):
            key, *cells = (cell.strip().strip("`") for cell in line.strip("|").split("|"))
            rows[key] = cells
    for i, branch in enumerate(RECIPES):
        assert rows["recipe"][i] == RECIPES[branch]
        opt = recipe(repository, branch)
        assert rows["netG.net_type"][i] == opt.netG.net_type
        for section in (opt.datasets.train, opt.datasets.test):
            assert section is not None
            assert rows["datasets.*.input_pack_mode"][i] == section.arguments()["input_pack_mode"]
        with torch.device("meta"):
            parameters = sum(p.numel() for p in define_G(opt.netG).parameters())
            plain = sum(p.numel() for p in NETWORKS.get("vrt")(**plain_options(opt)).parameters())
        assert rows["parameters"][i] == f"{parameters:,}"
        assert rows["of these for the spikes"][i] == f"{parameters - plain:,}"


def plain_options(opt: Options) -> dict[str, Any]:
    """Of a recipe's network, the RGB one."""
    return {key: value for key, value in opt.netG.arguments().items() if key in NETWORKS.parameters("vrt")} | {
        "in_chans": 3
    }


def test_example_of_a_fusion_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FUSIONS, "_parts", dict(FUSIONS._parts))
    (source,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(source, "docs/architecture.md", "exec"), {})
    network = NETWORKS.get("vrt_spike")(**SMALL, spike_bins=SYMBOLS["K"], fuse_type="sum").eval()
    frames, spikes = clip("3"), clip("K", 2)
    zero_start(network.early_fusion)
    with torch.no_grad():
        start = network(frames, spikes)
        assert torch.equal(start, network.vrt(frames))
        nn.init.eye_(network.fusion.scales[3].weight)
        assert not torch.equal(start, network(frames, spikes))
    with pytest.raises(ValueError, match=r"netG\.fuse_window: not an option of the fusion 'sum'"):
        NETWORKS.get("vrt_spike")(**SMALL, fuse_type="sum", fuse_window=3)
