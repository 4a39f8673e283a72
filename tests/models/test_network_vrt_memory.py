"""Inference on a CPU makes no tensor above 32 MiB but feature maps of the whole clip, and few of those.

Counted on tensors without data, for the published deblurring network, with fewer blocks, and the voxel recipe's. What
is computed in chunks gives the same numbers.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.layers.ops import chunks
from models.layers.ops.chunks import Budget
from models.layers.spike.spike_encoder3d import SpikeEncoder3D
from models.layers.spike.temporal_attention import SpikeTemporalSA, TemporalCrossAttentionFusion
from models.select_network import define_G
from models.training.estimate import StorageCount
from scripts.benchmark.bench_vrt import RECIPES
from scripts.benchmark.vrt_counters import Counts, count
from scripts.estimate_memory import NO_FILES
from tests.models.vrt_cases import small_vrt
from utils.utils_option import load_options

MIB = 1 << 20
CLIP = (1, 6, 3, 192, 192)
DEPTHS = f"netG.depths={[1] * 11}"


def large_tensors(network: nn.Module, inputs: list[torch.Tensor]) -> tuple[list[int], Counts]:
    """Sizes of all tensors above 32 MiB that a pass makes, and its counts."""
    sizes: list[int] = []
    add = StorageCount.add

    def noting(self: StorageCount, value: object) -> None:
        before = self.current
        add(self, value)
        if self.current - before > 32 * MIB:
            sizes.append(self.current - before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StorageCount, "add", noting)
        counts = count(network.eval(), inputs, step=False)
    return sizes, counts


def test_only_feature_maps_of_the_clip_are_large(repository: Path) -> None:
    alive = {}
    # Of full size are the outputs of conv_first and of the body, in stages 1 and 7 what is resized, that after either
    # group, and the output, in stage 8 what is widened, and the output of each group. The spike branch adds its
    # features, those that attend to themselves, the early fusion and the frames' features that attend to spikes.
    for recipe, most in (("006", 15), ("voxel", 19)):
        options = load_options(str(repository / RECIPES[recipe]), [*NO_FILES, DEPTHS]).netG
        inputs = [torch.empty(CLIP)]
        if recipe == "voxel":
            inputs.append(torch.empty(1, 6, options.spike_bins, 96, 96))
        sizes, counts = large_tensors(define_G(options), inputs)
        pixels = math.prod(CLIP) // 3
        assert set(sizes) == {4 * pixels * channels for channels in options.embed_dims}
        assert len(sizes) <= most
        alive[recipe] = counts.peak_alive
    # Before and after a stage, its skip connection and the network's: four maps, and less than two for the rest.
    assert alive["006"] <= 6 * 4 * pixels * 96
    assert alive["voxel"] <= 1.25 * alive["006"]


@pytest.mark.parametrize(
    "options", [{}, {"pa_frames": 6, "deformable_groups": 6, "upscale": 4, "embed_dims": [12] * 9}, {"in_chans": 5}]
)
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_smallest_chunks_give_what_all_at_once_gives(
    options: dict[str, Any], frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = small_vrt(**options).double()
    x = torch.rand(2, frames, network.in_chans, 17, 8, dtype=torch.float64)
    expected = network(x)
    smallest_chunks(monkeypatch)
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 3)])
def test_the_smallest_chunks_of_the_spike_branch(
    strides: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = [8, 8, 8, 8]
    encoder = SpikeEncoder3D(channels, bins=4, ratio=2, temporal_strides=strides)
    attention = SpikeTemporalSA(channels, 5, encoder.time_steps, heads=2)
    fusion = TemporalCrossAttentionFusion(channels, 5, encoder.time_steps, heads=2, window=3)
    for module in (encoder, attention, fusion):
        module.double()
    for scale in fusion.scales:
        nn.init.normal_(scale.attn.project.weight)
    spikes = torch.rand(2, 5, 4, 8, 12, dtype=torch.float64)
    frames = torch.rand(2, 5, 16, 24, 8, dtype=torch.float64)

    def run() -> list[torch.Tensor]:
        pyramid = attention(encoder(spikes, (16, 24), (16, 24)))
        return [*pyramid, fusion(0, frames, pyramid[0])]

    expected = run()
    smallest_chunks(monkeypatch)
    with torch.no_grad():
        for chunked, entire in zip(run(), expected, strict=True):
            torch.testing.assert_close(chunked, entire, rtol=0, atol=1e-11)


def smallest_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FRAMES", "PAIRS", "ROWS"):
        monkeypatch.setattr(chunks, name, Budget(cpu=1, accelerator=1))
