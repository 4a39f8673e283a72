"""The estimated memory of a step against what PyTorch's allocator is seen to do in a real one."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from models.layers.ops.deform_conv import deform_conv3x3
from models.model_base import Batch, ModelBase
from models.model_vrt import ModelVRT
from models.network_vrt import VRT
from models.select_network import vrt_with_spike
from models.training.estimate import GB, estimate_memory
from utils.options.parts import Registries, train_model
from utils.options.schema import TrainOptions
from utils.utils_dist import Dist
from utils.utils_registry import keyword_parameters

SIZE = 32
SMALL: dict[str, Any] = {
    "upscale": 1,
    "img_size": [3, SIZE, SIZE],
    "window_size": [2, 4, 4],
    "depths": [2, 1, 1, 2, 1, 1, 1, 1],
    "indep_reconsts": [],
    "embed_dims": [16] * 8,
    "num_heads": [2] * 8,
    "deformable_groups": 4,
}
RECOMPUTE = {"use_checkpoint_attn": True, "use_checkpoint_ffn": True}
SPIKES = {"spike_bins": 8, "spike_attn_max_batch_tokens": 300, "fuse_max_batch_tokens": 300}


def make(network: dict[str, Any], train: dict[str, Any], device: str = "cpu") -> ModelVRT:
    options = train_model(Registries(), "charbonnier")(**{"G_scheduler_periods": 10, "amp_dtype": None, **train})
    settings = {**SMALL, **network}
    if "spike_bins" in settings:
        defaults = {key: parameter.default for key, parameter in keyword_parameters(vrt_with_spike).items()}
        net: Any = vrt_with_spike(**{**defaults, **settings})
    else:
        net = VRT(**settings)
    return ModelVRT(net, options, Dist(0, 1, 0, torch.device(device)))


def batch(model: ModelVRT, clips: int = 1, frames: int = 3, side: int = SIZE) -> dict[str, Tensor]:
    clip = torch.rand(clips, frames, 3, side, side, device=model.dist.device)
    created = {"L": clip, "H": clip.clone()}
    if hasattr(model.netG, "spike_encoder"):
        created["L_spike"] = torch.rand(clips, frames, 8, side // 2, side // 2, device=model.dist.device)
    return created


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
    "network, train, clips, tolerance",
    [
        ({}, {}, 1, 0.01),
        (RECOMPUTE, {}, 2, 0.01),
        ({}, {"amp_dtype": "bf16"}, 1, 0.01),
        ({**SPIKES, "spike_checkpoint": True, "fuse_checkpoint": True}, {}, 1, 0.01),
        # A CPU's convolutions take scratch space for themselves.
        ({}, {"G_perceptual_weight": 0.1, "vgg_weights": "random", "vgg_max_frames": 2}, 1, 0.1),
    ],
    ids=["plain", "recomputing", "autocast", "spikes", "perceptual loss"],
)
def test_the_estimate_of_a_cpus_step_is_what_its_allocator_does(
    network: dict[str, Any], train: dict[str, Any], clips: int, tolerance: float
) -> None:
    model = make(network, train)
    estimated = estimate_memory(model, batch(model, clips), "cpu").activations
    assert estimated == pytest.approx(measured_peak(model, clips), rel=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("network", [{}, RECOMPUTE, SPIKES])
def test_the_estimate_made_on_a_cpu_is_near_what_a_gpu_takes(network: dict[str, Any]) -> None:
    larger = {"embed_dims": [48] * 8, "depths": [4] * 8, **network}
    estimate = estimate_memory(make(larger, {"amp_dtype": "bf16"}), batch(make(larger, {}), side=128))
    model = make(larger, {"amp_dtype": "bf16"}, "cuda")
    data = batch(model, side=128)
    model.optimize_parameters(1, data)
    torch.cuda.reset_peak_memory_stats()
    model.optimize_parameters(2, data)
    assert torch.cuda.max_memory_allocated() == pytest.approx(estimate.total, rel=0.25)


def test_what_is_held_between_steps() -> None:
    model = make({}, {"E_decay": 0.5, "G_perceptual_weight": 0.1, "vgg_weights": "random", "amp_dtype": "auto"})
    estimate = estimate_memory(model, batch(model))
    parameters = 4 * sum(p.numel() for p in model.netG.parameters())
    weights = parameters + sum(b.numel() * b.element_size() for b in model.netG.buffers())
    assert estimate.weights == estimate.average == weights
    assert (estimate.gradients, estimate.optimizer) == (parameters, 2 * parameters)
    # VGG16 to relu3_3: its convolutions 3-64-64-128-128-256-256-256.
    kernels = 3 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 2 * 256 * 256
    assert model.perceptual_loss is not None
    assert estimate.losses == 4 * (9 * kernels + 2 * 64 + 2 * 128 + 3 * 256 + 6)
    assert estimate.total == sum(estimate.parts().values())
    assert str(estimate).startswith(f"{estimate.total / GB:.2f} GB (weights 0.01, ")
    assert estimate.amp_dtype is torch.bfloat16 and str(estimate).endswith("; autocast to bfloat16)")


def test_nothing_of_the_model_changes() -> None:
    model = make({}, {"fix_iter": 5, "fix_keys": ["spynet"]})
    before = deepcopy(model.netG.state_dict())
    estimate_memory(model, batch(model))
    assert all(torch.equal(value, before[name]) for name, value in model.netG.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.netG.parameters())
    model.prepare(1)
    assert model.netG.spynet.mean.device.type == "cpu" and type(model.netG.spynet.mean) is Tensor


def test_recomputing_takes_less_and_more_clips_take_more() -> None:
    plain, recomputing = make({}, {}), make(RECOMPUTE, {})
    one, two = (estimate_memory(plain, batch(plain, clips)).activations for clips in (1, 2))
    assert one < two < 2.02 * one
    assert estimate_memory(recomputing, batch(recomputing)).activations < 0.8 * one


def test_any_size_is_estimated() -> None:
    """Padded windows, and more memory than a machine has."""
    model = make({"depths": [1] * 8}, {})
    estimate = estimate_memory(model, batch(model, frames=3, side=21))
    assert 0 < estimate.activations < estimate_memory(model, batch(model)).activations
    huge = {key: torch.empty(1, 6, 3, 1024, 1024, device="meta") for key in ("L", "H")}
    assert estimate_memory(model, huge).activations > 60 * GB


class Deformable(nn.Module):
    """One deformable convolution of eight channels; offsets and modulation are made on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(8, 8, 3, 3)), nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        offset, mask = (x.new_zeros(x.shape[0], n * 9, *x.shape[2:], requires_grad=True) for n in (2, 1))
        return deform_conv3x3(x, offset, mask, self.weight, self.bias)


class Summing(ModelBase):
    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"G_pixel": self.network(batch["L"]).sum()}


@pytest.mark.parametrize("count, at_once", [(4, 4), (34, 17)])
def test_a_gpus_deformable_convolution_holds_its_samples(count: int, at_once: int) -> None:
    """Most is held in the backward pass: input, offsets, modulation, their gradients, samples, the reordered gradient
    of the output. Of images torchvision takes a divisor of their number, of at most 32."""
    model = Summing(Deformable(), TrainOptions(G_scheduler_periods=1), Dist(0, 1, 0, torch.device("cpu")))
    estimate = estimate_memory(model, {"L": torch.empty(count, 8, 32, 32)})
    held = count * (2 * (8 + 18 + 9) + 8) + at_once * 8 * 9
    assert estimate.activations == pytest.approx(4 * 32 * 32 * held, rel=0.01)
