"""The estimated memory of a step against what PyTorch's allocator is seen to do in a real one."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from models.estimate import GB, estimate_memory
from models.model_vrt import ModelVRT
from models.network_vrt import VRT
from models.select_network import vrt_with_spike
from utils.option_schema import TrainOptions
from utils.utils_dist import Dist
from utils.utils_registry import keyword_parameters

SIZE = 32
SMALL: dict[str, Any] = {
    "upscale": 1,
    "img_size": [3, SIZE, SIZE],
    "window_size": [2, 4, 4],
    "depths": [2] * 8,
    "indep_reconsts": [],
    "embed_dims": [16] * 8,
    "num_heads": [2] * 8,
    "deformable_groups": 4,
}
RECOMPUTE = {"use_checkpoint_attn": True, "use_checkpoint_ffn": True}
SPIKES = {"spike_bins": 8, "spike_attn_max_batch_tokens": 300, "fuse_max_batch_tokens": 300}


def make(network: dict[str, Any], train: dict[str, Any], device: str = "cpu") -> ModelVRT:
    options = TrainOptions(**{"G_scheduler_periods": 10, "amp_dtype": None, **train})
    settings = {**SMALL, **network}
    if "spike_bins" in settings:
        defaults = {key: parameter.default for key, parameter in keyword_parameters(vrt_with_spike).items()}
        net: Any = vrt_with_spike(**{**defaults, **settings})
    else:
        net = VRT(**settings)
    return ModelVRT(net, options, Dist(0, 1, 0, torch.device(device)))


def batch(model: ModelVRT, clips: int = 1, frames: int = 3, side: int = SIZE) -> dict[str, Tensor]:
    clip = torch.rand(clips, frames, 3, side, side, device=model.dist.device)
    made = {"L": clip, "H": clip.clone()}
    if hasattr(model.netG, "spike_encoder"):
        made["L_spike"] = torch.rand(clips, frames, 8, side // 2, side // 2, device=model.dist.device)
    return made


def step(model: ModelVRT, clips: int) -> None:
    torch.stack(list(model.compute_losses(batch(model, clips)).values())).sum().backward()


def measured_peak(model: ModelVRT, clips: int) -> int:
    """Most bytes that the CPU's allocator had handed out at a time since the step began."""
    model.prepare(1)
    for parameter in model.netG.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(model, clips)
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize(
    "network, train, clips",
    [
        ({}, {}, 1),
        (RECOMPUTE, {}, 2),
        ({}, {"amp_dtype": "bf16"}, 1),
        ({**SPIKES, "spike_checkpoint": True, "fuse_checkpoint": True}, {}, 1),
        ({}, {"G_perceptual_weight": 0.1, "vgg_weights": "random", "vgg_max_frames": 2}, 1),
    ],
    ids=["plain", "recomputing", "autocast", "spikes", "perceptual loss"],
)
def test_the_estimate_of_a_cpus_step_is_what_its_allocator_does(
    network: dict[str, Any], train: dict[str, Any], clips: int
) -> None:
    model = make(network, train)
    estimated = estimate_memory(model, batch(model, clips), "cpu").activations
    assert estimated == pytest.approx(measured_peak(model, clips), rel=0.1)
