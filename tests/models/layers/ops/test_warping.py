"""Flow, warping, deformable convolution and alignment against plain loops and torchvision."""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from models.layers.backends.alignment import aligned_chunks
from models.layers.ops import chunks
from models.layers.ops.chunks import Budget, laid_out_for
from models.layers.ops.deform_conv import deform_conv3x3
from models.layers.ops.flow_warp import flow_warp, flow_warp_nearest4, neighbour_flows
from models.layers.vrt.alignment import DeformableAlignment
from models.layers.vrt.spynet import SpyNet


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def pixel(image: Tensor, y: int, x: int) -> Tensor:
    inside = 0 <= y < image.shape[-2] and 0 <= x < image.shape[-1]
    return image[:, y, x] if inside else torch.zeros_like(image[:, 0, 0])


@pytest.mark.parametrize(("height", "width"), [(5, 6), (1, 4), (3, 1)])
def test_flow_warp_is_bilinear_with_zeros_outside(height: int, width: int) -> None:
    x, flow = normal(2, 3, height, width), 2 * normal(2, 2, height, width)
    warped = flow_warp(x, flow)
    nearest = flow_warp_nearest4(x, flow)
    for n in range(2):
        for i in range(height):
            for j in range(width):
                u, v = j + flow[n, 0, i, j], i + flow[n, 1, i, j]
                left, top = int(u.floor()), int(v.floor())
                a, b = u - left, v - top
                corners = [pixel(x[n], top + dy, left + dx) for dx, dy in ((0, 0), (0, 1), (1, 0), (1, 1))]
                weights = [(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b]
                expected = sum(w * c for w, c in zip(weights, corners, strict=True))
                torch.testing.assert_close(warped[n, :, i, j], expected, rtol=0, atol=1e-12)
                torch.testing.assert_close(nearest[n, :, i, j], torch.cat(corners), rtol=0, atol=0)


def test_whole_pixel_flow_shifts() -> None:
    x = torch.rand(1, 2, 6, 7)
    flow = torch.zeros(1, 2, 6, 7)
    flow[:, 0], flow[:, 1] = 2, -1
    shifted = F.pad(x, (0, 2, 1, 0))[..., :6, 2:]
    torch.testing.assert_close(flow_warp(x, flow), shifted, rtol=0, atol=1e-5)
    # All four nearest pixels of a whole-pixel place are that pixel.
    torch.testing.assert_close(flow_warp_nearest4(x, flow), shifted.repeat(1, 4, 1, 1), rtol=0, atol=0)
    border = flow_warp(x, flow, "border")
    torch.testing.assert_close(border[..., -2:], x[..., -1:].expand_as(border[..., -2:])[..., [0, *range(5)], :])


def test_nearest_samples_give_flow_no_gradient() -> None:
    flow = normal(1, 2, 4, 4).requires_grad_()
    assert not flow_warp_nearest4(normal(1, 3, 4, 4), flow).requires_grad
    assert flow_warp(normal(1, 3, 4, 4), flow).requires_grad


@pytest.mark.parametrize("frames", [2, 3, 6])
def test_flows_over_several_frames_are_composed_by_warping(frames: int) -> None:
    flows = normal(2, 2, frames - 1, 2, 6, 5)
    result = neighbour_flows(flows, 3)
    assert result.shape == (2, 2, frames - 1, 3, 2, 6, 5)

    def step(a: int, b: int) -> Tensor:
        """Flow from frame a to its neighbour b."""
        return flows[0, :, a] if b > a else flows[1, :, b]

    def composed(a: int, b: int) -> Tensor:
        if abs(b - a) == 1:
            return step(a, b)
        before = b - (1 if b > a else -1)
        return composed(a, before) + flow_warp(step(before, b), composed(a, before))

    for t in range(frames - 1):
        for k in (1, 2, 3):
            for direction, start, end in ((0, t, t + k), (1, t + 1, t + 1 - k)):
                got = result[direction, :, t, k - 1]
                if 0 <= end < frames:
                    torch.testing.assert_close(got, composed(start, end), rtol=0, atol=1e-12)
                else:
                    assert not got.any()


@pytest.mark.parametrize(
    ("count", "channels", "out", "height", "width", "groups", "weight_groups", "chunk"),
    [
        (3, 8, 6, 9, 7, 4, 2, 8 * 9 * 7 * 8 * 2),  # chunks of two rows
        (5, 6, 6, 4, 5, 2, 1, 6 * 9 * 20 * 8 * 2),  # two images at a time
        (2, 8, 8, 1, 5, 2, 1, 1 << 20),
        (2, 9, 9, 6, 1, 3, 3, 1 << 20),
    ],
)
def test_deformable_convolution_equals_torchvision(
    count: int, channels: int, out: int, height: int, width: int, groups: int, weight_groups: int, chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(chunks, "PAIRS", Budget(cpu=chunk, accelerator=1))
    x, offset = normal(count, channels, height, width), 2 * normal(count, 18 * groups, height, width)
    mask, weight = normal(count, 9 * groups, height, width).sigmoid(), normal(out, channels // weight_groups, 3, 3)
    leaves = [t.requires_grad_() for t in (x, offset, mask, weight, normal(out))]
    x, offset, mask, weight, bias = leaves
    expected = deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)
    got = deform_conv3x3(x, offset, mask, weight, bias)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-11)
    factor = normal(*expected.shape)
    reference = torch.autograd.grad((expected * factor).sum(), leaves)
    for a, b in zip(torch.autograd.grad((got * factor).sum(), leaves), reference, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def alignment(pa_frames: int) -> DeformableAlignment:
    torch.manual_seed(0)
    module = DeformableAlignment(6, pa_frames, 3 * (pa_frames // 2), scale=2).double()
    assert not module.conv_offset[-1].weight.any()
    torch.nn.init.normal_(module.conv_offset[-1].weight, std=0.1)
    torch.nn.init.normal_(module.conv_offset[-1].bias, std=0.1)
    torch.nn.init.normal_(module.bias)
    return module


@pytest.mark.parametrize(("pa_frames", "frames"), [(2, 2), (2, 5), (4, 2), (4, 5), (6, 3), (6, 5)])
def test_alignment_equals_one_frame_at_a_time(pa_frames: int, frames: int) -> None:
    reach, scale = pa_frames // 2, 2
    module = alignment(pa_frames)
    x = normal(2, frames, 5, 7, module.weight.shape[0])
    flows = neighbour_flows(normal(2, 2, frames - 1, 2, 5, 7), reach)
    backward, forward = module(x, flows)
    pictures = x.permute(0, 1, 4, 2, 3)
    for t in range(frames):
        for direction, result in ((0, backward), (1, forward)):
            first = t + 1 if direction == 0 else t - 1
            if not 0 <= first < frames:
                assert not result[:, t].any()
                continue
            remaining = [t + k if direction == 0 else t - k for k in range(1, reach + 1)]
            existing = [pictures[:, o] if 0 <= o < frames else torch.zeros_like(pictures[:, 0]) for o in remaining]
            flow = flows[direction, :, t if direction == 0 else t - 1].unbind(1)
            warped = [flow_warp(a, b) for a, b in zip(existing, flow, strict=True)]
            raw = module.conv_offset(torch.cat([*warped, pictures[:, t], *flow], 1))
            o1, o2, mask = raw.chunk(3, 1)
            offset = 10 / scale * torch.tanh(torch.cat((o1, o2), 1))
            parts = [
                part + f.flip(1).repeat(1, part.shape[1] // 2, 1, 1)
                for part, f in zip(offset.chunk(reach, 1), flow, strict=True)
            ]
            expected = deform_conv2d(
                torch.cat(existing, 1), torch.cat(parts, 1), module.weight, module.bias, padding=1, mask=mask.sigmoid()
            )
            torch.testing.assert_close(result[:, t].permute(0, 3, 1, 2), expected, rtol=0, atol=1e-10)


def in_chunks(module: DeformableAlignment, x: Tensor, flows: Tensor) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """The results of `aligned_chunks` put together, and the shape (clips, frames) of each chunk."""
    ahead, behind, shapes = torch.full_like(x, torch.nan), torch.full_like(x, torch.nan), []
    with torch.no_grad():
        for chunk, of_next, of_previous in aligned_chunks(module, x, flows):
            ahead[chunk], behind[chunk] = of_next, of_previous
            shapes.append((of_next.shape[0], of_next.shape[1]))
    return ahead, behind, shapes


@pytest.mark.parametrize("processor", ["cpu", "cuda"])  # the second is the way that GPUs take
@pytest.mark.parametrize("pa_frames", [2, 4, 6])
@pytest.mark.parametrize(
    ("frames", "height", "width", "pairs", "shapes"),
    [
        (6, 5, 7, 1, [(1, 1)] * 12),
        (6, 7, 3, 5, [(1, 2)] * 6),
        (2, 1, 5, 2, [(1, 1)] * 4),
        (2, 5, 1, 8, [(2, 2)]),
    ],
)
def test_chunks_of_frames_are_aligned_as_all_at_once(
    processor: str, pa_frames: int, frames: int, height: int, width: int, pairs: int, shapes: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    module = alignment(pa_frames)
    x = normal(2, frames, height, width, 6)
    flows = neighbour_flows(normal(2, 2, frames - 1, 2, height, width), pa_frames // 2)
    channels = module.conv_offset[0].in_channels if processor == "cpu" else module.conv_offset[-1].out_channels
    limit = pairs * channels * height * width * 4
    monkeypatch.setattr(chunks, "PAIRS", Budget(cpu=limit, accelerator=limit))
    expected = module(x, flows)
    for rows in (1, 2, 16):
        row_bytes = module.conv_offset[-1].out_channels * width * 4
        monkeypatch.setattr(chunks, "ROWS", Budget(cpu=rows * row_bytes, accelerator=1))
        with laid_out_for(processor):
            ahead, behind, got_shapes = in_chunks(module, x, flows)
        assert got_shapes == shapes
        torch.testing.assert_close(ahead, expected[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(behind, expected[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("autocast", [False, True])
def test_alignment_in_chunks_of_rows_in_single_precision(autocast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """There oneDNN multiplies; under autocast the offset network is in half precision and the samples are not."""
    monkeypatch.setattr(chunks, "ROWS", Budget(cpu=2000, accelerator=1))
    module = alignment(4).float()
    x = normal(1, 3, 9, 8, 6).float()
    flows = neighbour_flows(normal(2, 1, 2, 2, 9, 8).float(), 2)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = module(x, flows)
        ahead, behind, _ = in_chunks(module, x, flows)
    tolerance = 0.02 if autocast else 1e-5
    torch.testing.assert_close(ahead, expected[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(behind, expected[1], rtol=0, atol=tolerance)


class TestSpyNet:
    @staticmethod
    def network() -> SpyNet:
        torch.manual_seed(0)
        network = SpyNet()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.5 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.1)
        return network.double()

    @staticmethod
    def plain(network: SpyNet, first: Tensor, second: Tensor) -> list[Tensor]:
        """One pair of images (B, 3, H, W), as published."""
        height, width = first.shape[-2:]
        padded = [-(-n // 32) * 32 for n in (height, width)]
        pyramids = []
        for image in (first, second):
            image = F.interpolate(image, size=padded, mode="bilinear", align_corners=False)
            levels = [(image - network.mean) / network.std]
            for _ in range(5):
                levels.insert(0, F.avg_pool2d(levels[0], 2, 2))
            pyramids.append(levels)
        flow, result = None, []
        for level, (a, b) in enumerate(zip(*pyramids, strict=True)):
            if flow is None:
                flow = torch.zeros_like(a[:, :2])
            else:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            grid_y, grid_x = torch.meshgrid(*[torch.arange(n).double() for n in a.shape[-2:]], indexing="ij")
            x = 2 * (grid_x + flow[:, 0]) / max(a.shape[-1] - 1, 1) - 1
            y = 2 * (grid_y + flow[:, 1]) / max(a.shape[-2] - 1, 1) - 1
            b = F.grid_sample(b, torch.stack((x, y), -1), padding_mode="border", align_corners=True)
            flow = network.basic_module[level](torch.cat((a, b, flow), 1)) + flow
            if level >= 2:
                s = 2 ** (5 - level)
                out = F.interpolate(flow, size=(height // s, width // s), mode="bilinear", align_corners=False)
                factors = [(width // s) / (padded[1] // s), (height // s) / (padded[0] // s)]
                result.insert(0, out * torch.tensor(factors, dtype=out.dtype).view(1, 2, 1, 1))
        return result

    @pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 24)])
    def test_clip_equals_pair_by_pair(self, height: int, width: int) -> None:
        network = self.network()
        clip = normal(2, 3, 3, height, width).sigmoid()
        flows = network(clip)
        assert [tuple(f.shape) for f in flows] == [(2, 2, 2, 2, height // s, width // s) for s in (1, 2, 4, 8)]
        with torch.no_grad():
            for t in range(2):
                for direction, (a, b) in enumerate([(t, t + 1), (t + 1, t)]):
                    expected = self.plain(network, clip[:, a], clip[:, b])
                    for level, e in zip(flows, expected, strict=True):
                        torch.testing.assert_close(level[direction, :, t], e, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("limit", [1, 3 * 64 * 32 * 32 * 8])
    def test_chunks_of_pairs(self, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
        network, clip = self.network(), normal(2, 3, 3, 40, 24).sigmoid()
        expected = network(clip)
        monkeypatch.setattr(chunks, "FRAMES", Budget(cpu=limit, accelerator=1))
        with torch.no_grad():
            for chunked, entire in zip(network(clip), expected, strict=True):
                torch.testing.assert_close(chunked, entire, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_weights_file(self, wrapped: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        network = self.network().float()
        state = network.state_dict()
        torch.save({"params": state} if wrapped else state, tmp_path / "spynet.pth")
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            loaded = SpyNet(str(tmp_path / "spynet.pth"))
            assert not caplog.records
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), network.parameters(), strict=True))

    def test_bad_weights_files_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"(?s)missing\.pth.*netG.spynet_path takes spynet_sintel_final"):
            SpyNet(str(tmp_path / "missing.pth"))
        (tmp_path / "page.pth").write_text("<html>404</html>")
        with pytest.raises(ValueError, match=r"(?s)page\.pth.*netG.spynet_path takes spynet_sintel_final"):
            SpyNet(str(tmp_path / "page.pth"))
        state = {key.replace(".weight", ".conv.weight"): value for key, value in SpyNet().state_dict().items()}
        torch.save(state, tmp_path / "other.pth")
        with pytest.raises(ValueError, match=r"(?s)other\.pth.*conv\.weight.*netG.spynet_path takes"):
            SpyNet(str(tmp_path / "other.pth"))
        torch.save([1, 2], tmp_path / "list.pth")
        with pytest.raises(ValueError, match=r"(?s)list\.pth.*netG.spynet_path takes"):
            SpyNet(str(tmp_path / "list.pth"))
