"""docs/extending.md: its parts, added to a copy of the project as the page says, are chosen by option and train."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.test_readme import ROOT

SCRIPT = """
import math
import numpy as np
import torch
from data.sampler import SampleIndex
from data.select_dataset import define_Dataset
from data.spike.encoding import build_encoding
from data.spike.sync import ExposureWindow
from models.losses import define_loss
from models.select_network import define_G
from tests.models.vrt_cases import small_vrt
from utils.user_error import UserError
from utils.utils_option import load_options

torch.manual_seed(0)
opt = load_options("parts.json")
dataset = define_Dataset(opt.datasets.train, seed=0, scale=1, n_channels=3)
sample = dataset[SampleIndex(0, 3)]
assert sample["L"].shape == (1, 4, 32, 32) and torch.equal(sample["L"], dataset[SampleIndex(0, 3)]["L"])
network = define_G(opt.netG)
assert network.conv_first.weight.shape == (8, 4, 3, 3)
loss = define_loss(opt.train.G_lossfn_type, opt.train)
assert abs(float(loss(torch.tensor([3.0]), torch.tensor([1.0]))) - math.log(math.cosh(4)) / 2) < 1e-6

optimizer = torch.optim.Adam(network.parameters(), 0.01)
losses = []
for _ in range(30):
    optimizer.zero_grad()
    losses.append(loss(network(sample["L"][None]), sample["H"][None]))
    losses[-1].backward()
    optimizer.step()
assert losses[-1] < 0.5 * losses[0], (losses[0], losses[-1])

spikes = np.zeros((10, 1, 2), np.uint8)
spikes[4:, 0, 0] = 1
encoded = build_encoding({"representation": "first_spike"}, 2.0)(spikes, ExposureWindow(2, 10, 5))
np.testing.assert_allclose(encoded[0, 0], [0.25, 1.0])

vrt, x = small_vrt(compute_backend="definition"), torch.rand(1, 2, 3, 16, 16)
with torch.no_grad():
    restored = vrt(x)
    vrt.compute_backend = "sdpa"
    torch.testing.assert_close(restored, vrt(x), rtol=0, atol=1e-4)

voxel = load_options("options/demo/quickstart_voxel.json", ["netG.fuse_type=gated", "netG.fuse_gain=0.5"])
fusion = define_G(voxel.netG).fusion
frames, spikes = torch.rand(1, 5, 2, 2, 24), torch.rand(1, 5 // fusion.time_steps[0] + 1, 2, 2, 24)
mixed = frames + 0.5 * fusion.projections[0](spikes.repeat_interleave(fusion.time_steps[0], 1)[:, :5])
torch.testing.assert_close(fusion(0, frames, spikes), mixed)

for overrides, told in ((["netG.width=0"], "netG.width"), (["train.G_logcosh_scal=1"], "G_logcosh_scale")):
    try:
        load_options("parts.json", overrides)
    except UserError as error:
        assert told in str(error), error
    else:
        raise AssertionError(overrides)
"""
OPTIONS = """{
  "task": "parts",
  "datasets": {"train": {"dataset_type": "GlidingSquareDataset", "spike": {"representation": "first_spike"}}},
  "netG": {"net_type": "two_layers", "width": 8},
  "train": {"G_lossfn_type": "logcosh", "G_logcosh_scale": 2.0, "total_iter": 1}
}"""


def test_parts_of_the_page(tmp_path: Path) -> None:
    for room in ("data", "models", "utils", "options"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    helpers = tmp_path / "tests" / "models"
    helpers.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "models" / "vrt_cases.py", helpers)
    page = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert len(sections) == 6
    for section in sections:
        part, statement, gathered_in = re.findall(r"`([^`]+(?:\.py|F401))`", section.partition("```python")[0])[:3]
        (code,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
        (tmp_path / part).write_text(code)
        _add_import(tmp_path / gathered_in, statement)
    (tmp_path / "parts.json").write_text(OPTIONS)
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, check=True, timeout=300)


def _add_import(path: Path, statement: str) -> None:
    """Before the first import of the project's own modules."""
    source, first = path.read_text(), re.compile(r"^(?=(?:from|import) (?:data|models|utils)\b)", flags=re.MULTILINE)
    assert first.search(source), path
    path.write_text(first.sub(f"{statement}\n", source, count=1))
