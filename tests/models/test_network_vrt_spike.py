"""VRT with the spike branch: starts as the RGB network, learns everywhere, takes spikes of any size, from options."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import data.select_dataset  # noqa: F401  registers by being imported
from models.layers.ops.linear import zero_start
from models.network_vrt_spike import VRTWithSpike
from models.select_network import define_G, load_weights
from tests.models.vrt_cases import SMALL, small_vrt
from utils.utils_option import load_options
from utils.utils_registry import NETWORKS

BINS = 4
OPTIONS: dict[str, Any] = {**SMALL, "spike_bins": BINS, "spike_attn_heads": 2, "fuse_heads": 2}


def network(seed: int = 0, **changes: Any) -> VRTWithSpike:
    torch.manual_seed(seed)
    return NETWORKS.get("vrt_spike")(**{**OPTIONS, **changes}).eval()


def clip(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def wake(net: nn.Module) -> Any:
    """Gives the zero-initialised parameters of both fusions weights, so that the spikes matter."""
    generator = torch.Generator().manual_seed(1)
    for parameter in (*net.fusion.parameters(), *net.early_fusion.parameters()):
        if not parameter.any():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return net


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An RGB network's, under the name that published files use."""
    path = tmp_path / "006_VRT.pth"
    torch.save({"params": small_vrt().state_dict()}, path)
    return path


@pytest.mark.parametrize("window", [1, 3])
def test_a_loaded_rgb_checkpoint_gives_the_rgb_output_bit_for_bit(
    window: int, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rgb, net = small_vrt(), network(fuse_window=window)
    with caplog.at_level(logging.INFO):
        load_weights(net, checkpoint)
    assert "the spike branch (spike_encoder, temporal_attention, early_fusion, fusion) are new" in caplog.text
    x, spikes = clip(2, 3, 3, 16, 24), 5 * clip(2, 3, BINS, 8, 12, seed=1)
    with torch.no_grad():
        assert torch.equal(net(x, spikes), rgb(x))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(net(x, spikes), rgb(x))
    # With gradients VRT goes another way; the spike branch draws no random numbers of VRT's drop path.
    torch.manual_seed(5)
    restored = net.train()(x, spikes)
    torch.manual_seed(5)
    assert torch.equal(restored, rgb.train()(x))


def test_loading_is_strict_about_everything_else(checkpoint: Path, tmp_path: Path) -> None:
    net = network()
    state = torch.load(checkpoint)["params"]
    for damage in ({}, {"conv_last.weight": state["conv_last.weight"][:1]}, {"surplus": torch.zeros(1)}):
        damaged = {**state, **damage}
        if not damage:
            del damaged["norm.weight"]
        torch.save(damaged, tmp_path / "damaged.pth")
        with pytest.raises(ValueError, match=rf"vrt\.{next(iter(damage), 'norm.weight')}"):
            load_weights(net, tmp_path / "damaged.pth")
    own = dict(wake(network(seed=3)).state_dict())
    torch.save(own, tmp_path / "own.pth")
    load_weights(net, tmp_path / "own.pth")
    assert all(torch.equal(value, own[key]) for key, value in net.state_dict().items())
    del own["fusion.scales.0.mlp.2.weight"]
    torch.save(own, tmp_path / "own.pth")
    with pytest.raises(ValueError, match=r"missing in the checkpoint:\n.*fusion\.scales\.0\.mlp\.2\.weight"):
        load_weights(net, tmp_path / "own.pth")


def test_learns_at_once_and_everywhere_after_three_steps(checkpoint: Path) -> None:
    net = network(fuse_window=3).train()
    load_weights(net, checkpoint)
    branch = {name: p for name, p in net.named_parameters() if not name.startswith("vrt.")}
    start = {name: p.detach().clone() for name, p in branch.items()}
    zero = {
        name
        for name in start
        if name.startswith("early_fusion")
        or (name.startswith("fusion") and name.split(".", 3)[3].startswith(("attn.project", "mlp.2")))
    }
    assert len(zero) == 18
    assert not any(start[name].any() for name in zero)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    x, spikes, sharp = clip(1, 6, 3, 16, 16), clip(1, 6, BINS, 8, 8, seed=1), clip(1, 6, 3, 16, 16, seed=2)
    for step in (1, 2, 3):
        optimizer.zero_grad()
        (net(x, spikes) - sharp).square().add(1e-9).sqrt().mean().backward()
        optimizer.step()
        moved = {name for name, p in branch.items() if not torch.equal(p, start[name])}
        if step == 1:
            assert zero <= moved
            elements = torch.cat([branch[name].flatten() for name in zero])
            assert elements.ne(0).float().mean() > 0.99
    assert set(start) - moved == set()


@pytest.mark.parametrize(
    ("size", "spike_size", "ratio", "warns"),
    [
        ((16, 16), (16, 16), 1, False),
        ((16, 16), (8, 8), 2, False),
        ((16, 16), (4, 4), 4, False),
        ((16, 24), (5, 9), 2, True),
        ((16, 16), (16, 16), 2, True),
        ((18, 10), (9, 5), 2, False),
        ((13, 11), (7, 5), 2, True),
    ],
)
def test_any_ratio_of_sizes(
    size: tuple[int, int], spike_size: tuple[int, int], ratio: int, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    net = wake(network(spike_ratio=ratio))
    caplog.clear()
    x, spikes = clip(1, 2, 3, *size), clip(1, 2, BINS, *spike_size, seed=1)
    with torch.no_grad():
        for _ in range(2):
            out = net(x, spikes)
        assert out.shape == x.shape
        assert not torch.allclose(out, net(x, spikes.flip(-1)), atol=1e-4)
    assert sum("resized to" in record.message for record in caplog.records) == warns


@pytest.mark.parametrize("frames", [1, 2, 5, 8])
def test_any_number_of_frames(frames: int) -> None:
    net = wake(network(spike_temporal_strides=[1, 1, 2]))
    x, spikes = clip(1, frames, 3, 8, 8), clip(1, frames, BINS, 4, 4, seed=1)
    with torch.no_grad():
        assert net(x, spikes).isfinite().all()


def test_order_in_time_matters() -> None:
    net = wake(network())
    x, spikes = clip(1, 4, 3, 16, 16), clip(1, 4, BINS, 8, 8, seed=1)
    with torch.no_grad():
        assert not torch.allclose(net(x, spikes), net(x, spikes.flip(1)), atol=1e-4)
        encode = lambda s: net.temporal_attention(net.spike_encoder(s, (16, 16), (16, 16)))  # noqa: E731
        for forward, backward in zip(encode(spikes), encode(spikes.flip(1)), strict=True):
            assert not torch.allclose(forward, backward.flip(1), atol=1e-3)


def test_each_way_of_the_spikes_reaches_the_output() -> None:
    """With everything else of the spikes' ways cut, the early fusion and each scale of the fusion still matter."""
    x, spikes = clip(1, 2, 3, 16, 16), clip(1, 2, BINS, 8, 8, seed=1)
    for kept in ("early_fusion", *(f"fusion.scales.{i}" for i in range(4))):
        net = network()
        zero_start(net.early_fusion)
        assert torch.equal(net(x, spikes), net(x, spikes.flip(1)))
        for name, parameter in net.named_parameters():
            if name.startswith(kept) and not parameter.any():
                nn.init.normal_(parameter, std=0.3)
        assert not torch.equal(net(x, spikes), net(x, spikes.flip(1))), kept


def test_spikes_and_frames_register() -> None:
    """A change in one corner of the spikes first changes that corner of the picture."""
    net = wake(network(depths=[1] * 9)).double()
    x, spikes = clip(1, 2, 3, 64, 64, dtype=torch.float64), clip(1, 2, BINS, 32, 32, seed=1, dtype=torch.float64)
    with torch.no_grad():
        before = net(x, spikes)
        spikes[..., :4, -4:] += 5
        change = (net(x, spikes) - before).abs().mean((0, 1, 2))
    assert change[:16, 48:].mean() > 3 * max(change[:16, :16].mean(), change[48:, 48:].mean(), change[48:, :16].mean())


@pytest.mark.parametrize("flag", ["spike_checkpoint", "spike_attn_checkpoint", "fuse_checkpoint"])
def test_recomputing_a_group_changes_nothing_and_keeps_less(flag: str) -> None:
    results = []
    for options in ({}, {flag: True}):
        net = wake(network(**options))
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.nbytes), t)[1], lambda t: t):
            loss = net(clip(1, 3, 3, 16, 16), clip(1, 3, BINS, 8, 8, seed=1)).square().mean()
        results.append([sum(sizes), loss, *torch.autograd.grad(loss, list(net.parameters()))])
    for a, b in zip(results[0][1:], results[1][1:], strict=True):
        assert torch.equal(a, b)
    assert results[1][0] < results[0][0]


def test_chunks_change_nothing() -> None:
    x, spikes = clip(2, 2, 3, 16, 16, dtype=torch.float64), clip(2, 2, BINS, 8, 8, seed=1, dtype=torch.float64)
    chunked = wake(network(fuse_max_batch_tokens=100, spike_attn_max_batch_tokens=37, fuse_window=3).double())
    with torch.no_grad():
        torch.testing.assert_close(
            chunked(x, spikes), wake(network(fuse_window=3).double())(x, spikes), rtol=0, atol=1e-12
        )


def test_bfloat16_autocast_stays_close_and_has_gradients() -> None:
    net = wake(network())
    x, spikes = clip(1, 3, 3, 16, 16), clip(1, 3, BINS, 8, 8, seed=1)
    expected = net(x, spikes)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x, spikes)
    out.float().square().mean().backward()
    assert (out - expected).abs().mean() < 0.05 * (expected - x).abs().mean()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_options_are_those_of_the_parts() -> None:
    parameters = NETWORKS.parameters("vrt_spike")
    assert NETWORKS.parameters("vrt").items() <= parameters.items()
    own = {key for key in parameters if key not in NETWORKS.parameters("vrt")}
    assert own == {
        *(f"spike_{key}" for key in ("bins", "ratio", "temporal_strides", "checkpoint")),
        *(f"spike_attn_{key}" for key in ("heads", "mlp_ratio", "max_batch_tokens", "checkpoint")),
        *(f"fuse_{key}" for key in ("type", "heads", "mlp_ratio", "window", "max_batch_tokens", "checkpoint")),
    }
    with pytest.raises(TypeError, match="fuse_widow"):
        network(fuse_widow=3)
    with pytest.raises(ValueError, match=r"netG\.fuse_type: no fusion is called 'x'"):
        network(fuse_type="x")


def test_weights_go_from_one_recipe_to_the_other(repository: Path) -> None:
    shapes = []
    for end in ("", "_lowmem"):
        recipe = repository / f"options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike_voxel{end}.json"
        opt = load_options(recipe, ["netG.spynet_path=null", "netG.init_type=identity"])
        with torch.device("meta"):
            shapes.append({key: value.shape for key, value in define_G(opt.netG).state_dict().items()})
    assert shapes[0] == shapes[1]


def test_wrong_spikes_are_named() -> None:
    net, x = network(), clip(1, 3, 3, 16, 16)
    with pytest.raises(ValueError, match='input_pack_mode to "dual"'):
        net(x)
    with pytest.raises(ValueError, match=r"\(1, 3\); got \(1, 2, 4, 8, 8\)"):
        net(x, clip(1, 2, BINS, 8, 8))
    with pytest.raises(ValueError, match=r"netG\.spike_bins is 4"):
        net(x, clip(1, 3, BINS + 1, 8, 8))
