"""Memory of the shipped recipes, and how clips are dealt out."""

import re
from pathlib import Path

import pytest
import torch

from scripts import estimate_memory
from utils.utils_option import load_options

ROOT = Path(__file__).resolve().parents[2]
RECIPES = "options/vrt/006_train_vrt_videodeblurring_gopro"
SMALL = ["netG.depths=[1,1,1,1,1,1,1,1]", "netG.embed_dims=[24,24,24,24,24,24,24,24]", "netG.indep_reconsts=[7]"]
SMALL += ["netG.num_heads=[2,2,2,2,2,2,2,2]", "netG.deformable_groups=2", "datasets.train.gt_size=64"]


def test_a_line_for_each_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(ROOT / f"{RECIPES}_{name}.json") for name in ("rgbspike", "rgbspike_voxel")]
    assert estimate_memory.main([*files, "--gpus", "8", "--set", *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    pattern = r"006_train_vrt_videodeblurring_gopro_(\w+), 1 clip at a time: \d+\.\d\d GB \(weights .*bfloat16\)"
    found = [re.fullmatch(pattern, line) for line in lines]
    assert [match and match[1] for match in found] == ["rgbspike", "rgbspike_voxel"]


def test_shapes_are_those_of_the_data() -> None:
    opt = load_options(ROOT / f"{RECIPES}_rgbspike_voxel.json", ["datasets.train.num_frame=4"])
    shapes = {key: tuple(value.shape) for key, value in estimate_memory.batch_of(opt, 2).items()}
    assert shapes == {"L": (2, 4, 3, 192, 192), "H": (2, 4, 3, 192, 192), "L_spike": (2, 4, 32, 96, 96)}
    opt = load_options(ROOT / f"{RECIPES}_rgbspike.json")
    assert estimate_memory.batch_of(opt, 1)["L"].shape == torch.Size([1, 6, 7, 192, 192])


@pytest.mark.parametrize(
    "arguments, message", [(["--gpus", "3"], "8 clips can't be dealt out"), (["--gpus", "0"], "8 clips")]
)
def test_clips_that_cannot_be_dealt_out(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert estimate_memory.main([str(ROOT / f"{RECIPES}_rgbspike.json"), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_options_page_states_what_its_commands_print(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    for command in re.findall(r"^ +python -m scripts.estimate_memory (.+)$", page, flags=re.MULTILINE):
        words = [str(ROOT / word) if word.endswith(".json") else word for word in command.split()]
        assert estimate_memory.main(words) == 0
    printed = re.findall(r"^(\w+), 1 clip at a time: (\S+) GB", capsys.readouterr().out, flags=re.MULTILINE)
    stated = re.findall(r"([\d.]+) GB for `(\w+)`", page)
    assert stated == [(f"{float(size):.1f}", task) for task, size in printed] and len(stated) == 4
    sizes = {task: float(size) for task, size in printed}
    assert sizes["006_train_vrt_videodeblurring_gopro_lowmem"] < 7


def test_the_lean_recipe_is_the_published_one() -> None:
    """The same clips, network and steps, one clip at a time; its memory is in the test above."""
    options = [load_options(ROOT / f"{RECIPES}{name}.json", estimate_memory.NO_FILES) for name in ("_lowmem", "")]
    lean, published = options
    for section in ("netG", "train"):
        changed = getattr(lean, section).model_dump(), getattr(published, section).model_dump()
        differing = {key for key in changed[0] if changed[0][key] != changed[1][key]}
        assert all("checkpoint" in key or key == "accumulate_grad" for key in differing)
    sizes = ("num_frame", "gt_size", "dataloader_batch_size")
    assert all(getattr(lean.datasets.train, key) == getattr(published.datasets.train, key) for key in sizes)
    assert estimate_memory.clips_at_once(lean, 1) == 1


def test_clips_at_a_time() -> None:
    opt = load_options(ROOT / f"{RECIPES}_rgbspike_voxel_lowmem.json")
    assert estimate_memory.clips_at_once(opt, 1) == 1
    with pytest.raises(ValueError, match=r"4 parts do not divide this rank's 2 samples"):
        estimate_memory.clips_at_once(opt, 2)
