"""What VRT promises beyond the published numbers: any size, either way of running, checkpoints, options."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models.network_vrt as network_vrt
from models.layers.ops import deform_conv
from models.layers.ops.chunks import laid_out_for
from models.layers.ops.flow_warp import flow_warp, flow_warp_nearest4
from models.layers.vrt import alignment, spynet
from models.network_vrt import VRT
from tests.models.vrt_cases import SMALL, small_vrt
from utils.utils_registry import NETWORKS


def clip(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(network(x).square().mean(), list(network.parameters())))


def test_registered_as_vrt() -> None:
    assert NETWORKS.get("vrt") is VRT
    assert {"depths", "in_chans", "out_chans", "spynet_path", "drop_path_rate"} <= NETWORKS.parameters("vrt").keys()


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(1, 16, 16), (2, 8, 24), (3, 9, 13), (5, 1, 1), (7, 24, 16), (1, 1, 5)]
)
def test_any_size_and_batch_independence(frames: int, height: int, width: int) -> None:
    network = small_vrt().double()
    x = clip(2, frames, 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        together, alone = network(x), torch.cat([network(x[:1]), network(x[1:])])
    assert together.shape == x.shape
    assert together.isfinite().all()
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)
    torch.testing.assert_close(network(x), together, rtol=0, atol=1e-10)


def test_odd_sizes_are_padded_by_replication_and_cropped() -> None:
    network = small_vrt().double()
    x = clip(1, 3, 3, 13, 22, dtype=torch.float64)
    padded = F.pad(x[0], (0, 2, 0, 3), mode="replicate")[None]
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(padded)[..., :13, :22], rtol=0, atol=0)


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_upscaling_shapes(upscale: int) -> None:
    with torch.no_grad():
        assert small_vrt(upscale=upscale)(clip(1, 2, 3, 9, 16)).shape == (1, 2, 3, 9 * upscale, 16 * upscale)


@pytest.mark.parametrize("out_chans", [3, 6])
def test_interpolation_shapes(out_chans: int) -> None:
    network = small_vrt(pa_frames=0, out_chans=out_chans, img_size=[4, 16, 16], window_size=[4, 8, 8])
    with torch.no_grad():
        assert network(clip(2, 4, 3, 18, 16)).shape == (2, out_chans // 3, 3, 18, 16)
    with pytest.raises(ValueError, match=r"img_size\[0\] = 4 frames; got 3"):
        network(clip(1, 3, 3, 16, 16))


def test_interpolation_adds_the_mean_back() -> None:
    network = small_vrt(pa_frames=0, img_size=[4, 16, 16], window_size=[4, 8, 8]).double()
    x = clip(1, 4, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(x + 0.25), network(x) + 0.25, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pa_frames", [2, 4, 6])
def test_one_warp_and_one_deformable_convolution_per_stage(pa_frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, for all frames, neighbours and both directions together; and one SpyNet pass with one pyramid."""
    calls: dict[str, list[int]] = {"deform": [], "warp": [], "level": [], "image": []}

    def counting(name, function):  # type: ignore[no-untyped-def]
        return lambda x, *args: (calls[name].append(x.shape[0]), function(x, *args))[1]

    monkeypatch.setattr(alignment, "deform_conv3x3", counting("deform", deform_conv.deform_conv3x3))
    monkeypatch.setattr(alignment, "flow_warp", counting("warp", flow_warp))
    monkeypatch.setattr(network_vrt, "flow_warp_nearest4", counting("image", flow_warp_nearest4))
    monkeypatch.setattr(spynet, "flow_warp", counting("level", flow_warp))
    reach = pa_frames // 2
    network = small_vrt(pa_frames=pa_frames, deformable_groups=2 * reach, embed_dims=[12] * 9)
    pyramids: list[int] = []
    network.spynet._pyramid = counting_pyramid(network.spynet._pyramid, pyramids)  # type: ignore[method-assign]
    with torch.no_grad(), laid_out_for("cuda"):
        network(clip(2, 5, 3, 16, 16))
    pairs = 2 * 2 * 4
    assert calls == {
        "deform": [pairs] * 7,
        "warp": [pairs * reach] * 7,
        "level": [pairs] * 6,
        "image": [pairs],
    }
    assert pyramids == [2 * 5]


def counting_pyramid(function, frames: list[int]):  # type: ignore[no-untyped-def]
    return lambda images: (frames.append(images.shape[0]), function(images))[1]


@pytest.mark.parametrize(
    "flags", [{"no_checkpoint_attn_blocks": [2], "no_checkpoint_ffn_blocks": [1, 7]}, {"use_checkpoint_align": True}]
)
def test_checkpointing_equals_none_and_flags_mean_what_they_say(flags: dict) -> None:
    plain = small_vrt().double()
    lean = small_vrt(use_checkpoint_attn=True, use_checkpoint_ffn=True, **flags).double()
    for i, group in enumerate([*(getattr(lean, f"stage{s}") for s in range(1, 8)), *lean.stage8[1:]]):
        for block in (m for m in group.modules() if hasattr(m, "checkpoint_attn")):
            assert block.checkpoint_attn == (i not in flags.get("no_checkpoint_attn_blocks", []))
            assert block.checkpoint_ffn == (i not in flags.get("no_checkpoint_ffn_blocks", []))
    x = clip(1, 3, 3, 16, 16, dtype=torch.float64)
    for device in ("cpu", "cuda"):
        with laid_out_for(device):
            for a, b in zip(gradients(plain, x), gradients(lean, x), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_checkpointing_keeps_less() -> None:
    def kept(network: VRT) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(clip(1, 3, 3, 16, 16))
        return sum(sizes.values())

    def with_options(attn: bool, ffn: bool, align: bool) -> int:
        return kept(small_vrt(use_checkpoint_attn=attn, use_checkpoint_ffn=ffn, use_checkpoint_align=align))

    flags = ((False, False, False), (True, False, False), (True, True, False), (True, True, True))
    with laid_out_for("cuda"):
        none, attn, both, all_three = (with_options(*each) for each in flags)
    assert none > attn > both > all_three
    # On a CPU blocks keep what their written-out backward pass reads, or with checkpointed attention only their input.
    assert with_options(True, True, False) < with_options(False, False, False) < none


def test_drop_path_is_per_sample_and_only_in_training() -> None:
    network = small_vrt(drop_path_rate=0.5).double()
    rates = [m.drop_path for m in network.modules() if hasattr(m, "drop_path")]
    assert rates[0] == 0
    assert max(rates) == 0.5
    # Both groups of a stage take its rates from the start: group 2's only block has the rate of group 1's.
    stage = network.stage3
    assert stage.residual_group1.blocks[0].drop_path == stage.residual_group2.blocks[0].drop_path
    x = clip(2, 2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(network(x), network(x))
        network.train()
        torch.manual_seed(0)
        first = network(x)
        assert not torch.allclose(first, network(x))
        torch.manual_seed(0)
    torch.testing.assert_close(network(x), first, rtol=0, atol=1e-10)


def test_bfloat16_autocast_keeps_flow_grids_and_offsets_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_vrt().train()
    x = clip(1, 3, 3, 16, 16)
    seen: list[torch.dtype] = []
    sample, flows = F.grid_sample, []

    def grid_sample(source: Tensor, grid: Tensor, **options: object) -> Tensor:
        seen.append(grid.dtype)
        return sample(source, grid, **options)  # type: ignore[arg-type]

    def deform(source: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        seen.extend(part.dtype for part in (source, offset, mask))
        return deform_conv.deform_conv3x3(source, offset, mask, weight, bias)

    monkeypatch.setattr(F, "grid_sample", grid_sample)
    monkeypatch.setattr(alignment, "deform_conv3x3", deform)
    network.spynet.register_forward_hook(lambda module, args, result: flows.append(result))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = network(x)
        y.float().square().mean().backward()
    assert set(seen) == {torch.float32}
    for a, b in zip(flows[0], network.spynet(x), strict=True):
        assert torch.equal(a, b)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_constants_are_shared_and_survive_copies_and_casts() -> None:
    network = small_vrt()
    double = copy.deepcopy(network).double()
    for net in (network, double):
        codes = {id(m.codes) for m in net.modules() if hasattr(m, "codes")}
        assert len(codes) == 3  # two-frame, whole and one-frame windows
        names = [name for name, _ in net.named_buffers()]
        assert sum("relative_position_index" in name for name in names) == 3
    assert id(network.stage1.residual_group1.blocks[0].attn.codes) not in {
        id(m.codes) for m in double.modules() if hasattr(m, "codes")
    }
    x = clip(1, 3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(double(x.double()).float(), network(x), rtol=0, atol=1e-3)


def test_state_dict_round_trip() -> None:
    source, target = small_vrt(), VRT(**SMALL).eval()
    result = target.load_state_dict(source.state_dict(), strict=True)
    assert not result.missing_keys
    assert not result.unexpected_keys
    x = clip(1, 2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(source(x), target(x))
    half = {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}
    target.load_state_dict(half, strict=True)


def test_constants_are_saved_once(tmp_path: Path) -> None:
    network = small_vrt()
    torch.save(network.state_dict(), tmp_path / "shared.pth")
    torch.save({k: v.clone() for k, v in network.state_dict().items()}, tmp_path / "repeated.pth")
    assert (tmp_path / "shared.pth").stat().st_size < 0.6 * (tmp_path / "repeated.pth").stat().st_size


@pytest.mark.parametrize("name", ["relative_position_index", "position_bias"])
def test_a_checkpoint_with_other_constants_is_refused(name: str) -> None:
    network = small_vrt()
    key = f"stage2.residual_group1.blocks.0.attn.{name}"
    state = dict(network.state_dict())
    state[key] = state[key].flip(0) if name == "relative_position_index" else state[key].flip(1)
    with pytest.raises(RuntimeError, match=f"{key}.*another netG.window_size"):
        network.load_state_dict(state)
    state[key] = state[key][:, :1]
    with pytest.raises(RuntimeError, match=key):
        network.load_state_dict(state)


def test_fuse_replaces_the_outputs_of_conv_first_and_the_encoder_stages() -> None:
    network = small_vrt().double()
    x = clip(2, 3, 3, 16, 24, dtype=torch.float64)
    seen: list[tuple[int, tuple[int, ...]]] = []

    def record(stage: int, features: Tensor) -> Tensor:
        seen.append((stage, tuple(features.shape)))
        return features

    with torch.no_grad():
        torch.testing.assert_close(network(x, fuse=record), network(x), rtol=0, atol=0)
        assert seen == [(i, (2, 3, 16 // scale, 24 // scale, 8)) for i, scale in enumerate((1, 1, 2, 4, 8))]
        for chosen in range(5):
            changed = network(x, fuse=lambda i, f, chosen=chosen: f + f.roll(1, 2) if i == chosen else f.contiguous())
            assert not torch.allclose(changed, network(x), atol=1e-4)


def test_faults_in_the_arguments_are_named() -> None:
    def faults(**changes: object) -> str:
        with pytest.raises(ValueError) as error:
            VRT(**{**SMALL, **changes})
        return str(error.value)

    assert "netG.depths" in faults(depths=[2] * 7)
    assert "choices: 0, 2, 4, 6; got 3" in faults(pa_frames=3)
    assert "multiple of pa_frames / 2 = 2" in faults(pa_frames=4, deformable_groups=3)
    assert "netG.in_chans" in faults(in_chans=1)
    assert "netG.out_chans" in faults(out_chans=1)
    assert "netG.indep_reconsts" in faults(indep_reconsts=[3])
    assert "the first 7 are equal" in faults(embed_dims=[8] * 6 + [16] + [12] * 2)
    assert "netG.upscale: choices: 1, 2, 3, 4, 8, 16; got 5" in faults(upscale=5)
    both = faults(pa_frames=3, in_chans=1)
    assert "pa_frames" in both
    assert "in_chans" in both


def test_wrong_input_is_named() -> None:
    network = small_vrt(nonblind_denoising=True)
    with pytest.raises(ValueError, match=r"\(B, T, 4, H, W\).*noise map; got \(1, 2, 3, 8, 8\)"):
        network(clip(1, 2, 3, 8, 8))


def test_without_its_weights_spynet_starts_at_zero_flow() -> None:
    network = VRT(**SMALL)
    x = clip(1, 3, 3, 32, 32)
    assert all(not level.any() for level in network.spynet(x))
    # conv_offset starts at zero, so the first step moves it and the second SpyNet's last convolutions.
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        network(x).square().mean().backward()
        optimiser.step()
    assert any(level.any() for level in network.spynet(x))


class TestConcatBranch:
    """RGB with spike channels behind it."""

    @pytest.mark.parametrize("arguments", [{}, {"nonblind_denoising": True}])
    def test_widened_checkpoint_gives_the_rgb_output(self, arguments: dict) -> None:
        rgb, wide = small_vrt(**arguments).double(), VRT(**{**SMALL, **arguments}, in_chans=5).double().eval()
        weights, names = wide.widen(rgb.state_dict())
        assert names == ["conv_first.weight"]
        wide.load_state_dict(weights, strict=True)
        x = clip(1, 3, 3 + len(arguments), 16, 16, dtype=torch.float64)
        spikes = clip(1, 3, 2, 16, 16, dtype=torch.float64) * 8
        with torch.no_grad():
            mixed = torch.cat((x[:, :, :3], spikes, x[:, :, 3:]), 2)
            torch.testing.assert_close(wide(mixed), rgb(x), rtol=0, atol=1e-10)

    def test_first_layer_is_exact(self) -> None:
        rgb, wide = small_vrt().double(), VRT(**SMALL, in_chans=4).double()
        wide.load_state_dict(wide.widen(rgb.state_dict())[0])
        a = torch.randint(0, 9, (2, 9, 3, 8, 8), generator=torch.Generator().manual_seed(0)).double()
        b = torch.cat((a, torch.full((2, 9, 1, 8, 8), 7.0)), 2)
        weight = wide.conv_first.weight.unflatten(1, (9, 4))
        assert torch.equal(weight[:, :, :3].flatten(1, 2), rgb.conv_first.weight)
        assert not weight[:, :, 3:].any()
        expected = rgb.conv_first(a.flatten(1, 2))
        torch.testing.assert_close(wide.conv_first(b.flatten(1, 2)), expected, rtol=0, atol=1e-12)

    def test_spikes_are_used_once_trained(self) -> None:
        network = small_vrt(in_chans=4)
        x = clip(1, 3, 4, 16, 16)
        other = x.clone()
        other[:, :, 3] += 0.5
        with torch.no_grad():
            assert not torch.allclose(network(x), network(other), atol=1e-3)
        flows = [network.spynet(frames[:, :, :3])[0] for frames in (x, other)]
        assert torch.equal(*flows)

    def test_residual_is_rgb_alone(self) -> None:
        network = small_vrt(in_chans=4).double()
        nn.init.zeros_(network.conv_last.weight)
        nn.init.zeros_(network.conv_last.bias)
        x = clip(1, 2, 4, 16, 16, dtype=torch.float64)
        with torch.no_grad():
            assert torch.equal(network(x), x[:, :, :3])

    def test_channel_order_of_conv_first(self) -> None:
        """[x (all), next frame's four samples x all, previous frame's four samples x all]."""
        x = clip(1, 2, 4, 8, 8)
        parts = VRT._with_neighbours(x, torch.zeros(2, 1, 1, 2, 8, 8), slice(0, 2))
        stacked = torch.cat(parts, 2).unflatten(2, (9, 4))
        torch.testing.assert_close(stacked[:, 0, 1:5], x[:, 1, None].expand(-1, 4, -1, -1, -1), rtol=0, atol=0)
        torch.testing.assert_close(stacked[:, 1, 5:], x[:, 0, None].expand(-1, 4, -1, -1, -1), rtol=0, atol=0)
        assert not stacked[:, 0, 5:].any()
        assert not stacked[:, 1, 1:5].any()

    def test_other_checkpoints_come_back_unchanged(self) -> None:
        wide = VRT(**SMALL, in_chans=4)
        for state in (wide.state_dict(), {"weight": torch.zeros(1)}, VRT(**SMALL, in_chans=5).state_dict()):
            same, names = wide.widen(state)
            assert not names
            assert all(same[key] is state[key] for key in state)
        assert VRT(**SMALL).widen(small_vrt().state_dict())[1] == []
