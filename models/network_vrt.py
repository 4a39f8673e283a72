"""VRT, a Video Restoration Transformer (Liang et al., arXiv 2201.12288): super-resolution, deblurring, denoising,
frame interpolation, and RGB followed by spike channels.

Written from the paper and from the behaviour of the published weights, which load unchanged. This module connects the
parts of `models/layers`. Chosen by `"net_type": "vrt"`.

Legend: B batch, T frames, C channels, H height, W width, K neighbours per direction (pa_frames / 2).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.backends import eager, flex, sdpa  # noqa: F401  (register their back ends)
from models.layers.backends.automatic import AutomaticBackend
from models.layers.backends.backend import AUTO, backend_fault, choose_backend, compute_dtype
from models.layers.backends.cpu import native  # noqa: F401
from models.layers.backends.triton import backend as triton_backend  # noqa: F401
from models.layers.ops import chunks
from models.layers.ops.chunks import add_to, in_chunks, over_frames
from models.layers.ops.flow_warp import flow_warp_nearest4, neighbour_flows
from models.layers.ops.frame_conv import RGB, WARPED_COPIES, FrameConv, Upsample, widen_conv_first
from models.layers.vrt.arguments import RULES, STAGE_COUNT
from models.layers.vrt.executor import Executor
from models.layers.vrt.spynet import SpyNet
from models.layers.vrt.stage import RTMSA, Stage
from models.layers.vrt.window_attention import BlockSettings, WindowCodes
from models.layers.vrt.window_layout import Size3, WindowLayouts
from utils.user_error import UserError
from utils.utils_registry import NETWORKS, Faults, check_rules, raise_faults

# (change of size before the stage, full size over that of its features) of stages 1 to 7: a U-Net, as published.
STAGES = (("none", 1), ("down", 2), ("down", 4), ("down", 8), ("up", 4), ("up", 2), ("up", 1))
assert len(STAGES) == STAGE_COUNT
# Channels between conv_before_upsample (or linear_fuse) and conv_last, as in the published weights.
RECONSTRUCTION_CHANNELS = 64
# The encoder halves height and width three times: 2**3.
SIZE_MULTIPLE = 8

Fuse = Callable[[int, Tensor], Tensor]


@NETWORKS.register("vrt")
class VRT(nn.Module):
    """Video restoration transformer.

    Args:
        upscale: 1, 2, 3, 4, 8: size of the output over that of the input.
        in_chans: channels per frame, RGB first. The channels after RGB (spikes) are warped and go through `conv_first`;
            optical flow and the output's residual use RGB alone. A noise map is not counted.
        out_chans: 3; for frame interpolation 3 per interpolated frame.
        img_size: (frames, height, width) of training; only the frames matter, and only to interpolation.
        window_size: attention window (frames, height, width).
        depths: blocks of stages 1 to 7, then of each residual group of stage 8.
        indep_reconsts: positions in `depths` of groups whose window has one frame.
        embed_dims: channels, one per entry of `depths`; the first seven are equal, and so are the others.
        num_heads: attention heads, one per entry of `depths`.
        mul_attn_ratio: share of a stage's blocks that have mutual attention.
        mlp_ratio: hidden channels of the MLP over the block's.
        qkv_bias: bias of the query, key and value projections.
        qk_scale: factor of the attention scores; head_dim**-0.5 if None.
        drop_path_rate: stochastic depth of the last block, linear from 0 at the first.
        spynet_path: SpyNet's weights; None: flow starts at zero and untrained.
        pa_frames: 2, 4 or 6 neighbours aligned to each frame, both directions together; 0 interpolates a frame.
        deformable_groups: groups of the deformable convolutions, a multiple of pa_frames / 2.
        nonblind_denoising: the input has a noise map as its last channel.
        use_checkpoint_attn, use_checkpoint_ffn: recompute attention or MLP halves in the backward pass (less memory,
            same result), except in stages or groups whose position in `depths` is in `no_checkpoint_attn_blocks` or
            `no_checkpoint_ffn_blocks`.
        use_checkpoint_align: the same for the alignment of neighbouring frames, in all stages.
        compute_backend: how blocks and alignment are computed, a name of `COMPUTE_BACKENDS`
            (`models/layers/backends/backend.py`); "auto": the fastest that is right, measured
            (`models/layers/backends/automatic.py`). May be changed later by setting the attribute of this name.

    Raises:
        UserError: arguments that do not fit together.
    """

    def __init__(
        self,
        *,
        upscale: int = 4,
        in_chans: int = 3,
        out_chans: int = 3,
        img_size: Sequence[int] = (6, 64, 64),
        window_size: Sequence[int] = (6, 8, 8),
        depths: Sequence[int] = (8,) * 7 + (4,) * 6,
        indep_reconsts: Sequence[int] = (11, 12),
        embed_dims: Sequence[int] = (120,) * 7 + (180,) * 6,
        num_heads: Sequence[int] = (6,) * 13,
        mul_attn_ratio: float = 0.75,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_path_rate: float = 0.2,
        spynet_path: str | None = None,
        pa_frames: int = 2,
        deformable_groups: int = 16,
        nonblind_denoising: bool = False,
        use_checkpoint_attn: bool = False,
        use_checkpoint_ffn: bool = False,
        no_checkpoint_attn_blocks: Sequence[int] = (),
        no_checkpoint_ffn_blocks: Sequence[int] = (),
        use_checkpoint_align: bool = False,
        compute_backend: str = AUTO,
    ) -> None:
        raise_faults("netG.", self.faults(locals()))
        super().__init__()
        self.in_chans, self.out_chans, self.upscale = in_chans, out_chans, upscale
        self.pa_frames, self.nonblind_denoising = pa_frames, nonblind_denoising
        self.clip_frames = img_size[0]
        self.compute_backend = compute_backend
        self.automatic = AutomaticBackend()
        dim, body_dim = embed_dims[0], embed_dims[-1]

        self.conv_first = FrameConv(in_chans * (WARPED_COPIES if pa_frames else 1) + nonblind_denoising, dim)
        if pa_frames:
            self.spynet = SpyNet(spynet_path)

        window: Size3 = (window_size[0], window_size[1], window_size[2])
        pair_codes = WindowCodes((2, *window[1:]), position_channels=dim)
        window_codes, frame_codes = WindowCodes(window), WindowCodes((1, *window[1:]))
        ends = [0, *accumulate(depths)]
        drop_paths = torch.linspace(0, drop_path_rate, ends[-1], device="cpu").tolist()

        def settings(i: int) -> BlockSettings:
            """Settings of the blocks at position i of `depths`."""
            return BlockSettings(
                dim=embed_dims[i],
                num_heads=num_heads[i],
                drop_paths=tuple(drop_paths[ends[i] : ends[i + 1]]),
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                checkpoint_attn=use_checkpoint_attn and i not in no_checkpoint_attn_blocks,
                checkpoint_ffn=use_checkpoint_ffn and i not in no_checkpoint_ffn_blocks,
            )

        def stage(i: int) -> Stage:
            resize, scale = STAGES[i]
            return Stage(
                embed_dims[max(i - 1, 0)], settings(i), pair_codes, window_codes, resize=resize, scale=scale,
                pa_frames=pa_frames, deformable_groups=deformable_groups, mul_attn_ratio=mul_attn_ratio,
                checkpoint_align=use_checkpoint_align,
            )  # fmt: skip

        self.stage1, self.stage2, self.stage3, self.stage4 = stage(0), stage(1), stage(2), stage(3)
        self.stage5, self.stage6, self.stage7 = stage(4), stage(5), stage(6)
        self.stage8 = nn.ModuleList([nn.Sequential(nn.Identity(), nn.LayerNorm(dim), nn.Linear(dim, body_dim))])
        for i in range(len(STAGES), len(depths)):
            self.stage8.append(RTMSA(settings(i), frame_codes if i in indep_reconsts else window_codes))
        self.norm = nn.LayerNorm(body_dim)
        self.conv_after_body = nn.Linear(body_dim, dim)

        self._add_reconstruction(dim)

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of constructor arguments, as (argument, sentence); absent arguments are not checked."""
        yield from check_rules(RULES, arguments)
        unknown = backend_fault(arguments.get("compute_backend", AUTO))
        if unknown is not None:
            yield "compute_backend", unknown

    def _add_reconstruction(self, dim: int) -> None:
        """Adds the layers from features with `dim` channels to the output."""
        if not self.pa_frames:
            self.linear_fuse = nn.Conv2d(dim * self.clip_frames, RECONSTRUCTION_CHANNELS, kernel_size=1)
            self.conv_last: nn.Module = nn.Conv2d(RECONSTRUCTION_CHANNELS, self.out_chans, kernel_size=7)
        elif self.upscale == 1:
            self.conv_last = FrameConv(dim, self.out_chans)
        else:
            self.conv_before_upsample = nn.Sequential(FrameConv(dim, RECONSTRUCTION_CHANNELS), nn.LeakyReLU())
            self.upsample = Upsample(self.upscale, RECONSTRUCTION_CHANNELS)
            self.conv_last = FrameConv(RECONSTRUCTION_CHANNELS, self.out_chans)

    def forward(self, x: Tensor, fuse: Fuse | None = None) -> Tensor:
        """Restores a clip.

        Args:
            x: (B, T, in_chans, H, W) in [0, 1], RGB first, and a noise map as last channel for non-blind denoising. Any
                T, H and W from 1 on; sides that are not multiples of 8 are padded by replication, and the result is
                cropped. For interpolation T is img_size[0].
            fuse: fuse(i, features) is called with the output of `conv_first` for i = 0 and of stage i for i = 1..4,
                (B, T, H', W', C) at 1, 1, 1/2, 1/4, 1/8 of the padded size. Its result, of the same shape, replaces
                the features, in the next stage and in the skip connections. None: the plain network.

        Returns:
            (B, T, out_chans, H*upscale, W*upscale); for interpolation (B, out_chans/3, 3, H, W).

        Raises:
            UserError: the input's shape does not fit the network.
        """
        self._check_input(x)
        height, width = x.shape[-2:]
        if self.pa_frames:
            # (B, T, out_chans, H' * upscale, W' * upscale), H' and W' multiples of 8
            y = self._restore(pad_to_multiple(x, SIZE_MULTIPLE), fuse)
        else:
            mean = x.mean((1, 3, 4), keepdim=True)  # (B, 1, C, 1, 1)
            # (B, out_chans/3, 3, H', W')
            y = self._interpolate(pad_to_multiple(x - mean, SIZE_MULTIPLE), fuse) + mean[:, :, :RGB]
        return y[..., : height * self.upscale, : width * self.upscale]  # without the padding

    def widen(self, state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """An RGB network's checkpoint adapted to this network, and the widened keys (`widen_conv_first`)."""
        return widen_conv_first(
            state_dict, self.in_chans, pa_frames=self.pa_frames, nonblind_denoising=self.nonblind_denoising
        )

    def _restore(self, x: Tensor, fuse: Fuse | None) -> Tensor:
        """Deblurring, denoising, super-resolution: (B, T, C, H, W) to (B, T, out_chans, H*upscale, W*upscale)."""
        x, noise = x[:, :, : self.in_chans], x[:, :, self.in_chans :]
        rgb = x[:, :, :RGB]  # (B, T, 3, H, W)
        flows = self.spynet(rgb) if x.shape[1] > 1 else [None] * 4  # (2, B, T-1, 2, H/s, W/s) for s = 1, 2, 4, 8
        orders = [None if level is None else neighbour_flows(level, self.pa_frames // 2) for level in flows]
        executor = self._executor(x)
        # No variable holds conv_first's output, so that its memory is freed if the fusion replaces it.
        features = self._body(self._shallow(x, flows[0], noise, executor), orders, fuse, executor)  # (B, T, H, W, C)
        if self.upscale == 1:
            return over_frames(self._picture, features) + rgb  # (B, T, out_chans, H, W)
        size = [length * self.upscale for length in x.shape[-2:]]
        skip = F.interpolate(rgb.flatten(0, 1), size=size, mode="bilinear", align_corners=False)  # (B*T, 3, ...)
        widening = RECONSTRUCTION_CHANNELS * self.upscale**2 / features.shape[-1]
        return over_frames(self._picture, features, widening) + skip.unflatten(0, x.shape[:2])

    def _picture(self, features: Tensor) -> Tensor:
        """Features (B, T, H, W, C) to the output's residual, (B, T, out_chans, H*upscale, W*upscale)."""
        images = features.flatten(0, 1).permute(0, 3, 1, 2)  # (B*T, C, H, W)
        if self.upscale > 1:
            images = self.upsample(self.conv_before_upsample(images))  # (B*T, 64, H*upscale, W*upscale)
        return self.conv_last(images).unflatten(0, features.shape[:2])  # (B, T, out_chans, ...)

    def _interpolate(self, x: Tensor, fuse: Fuse | None) -> Tensor:
        """Frame interpolation: (B, T, C, H, W) without its mean to (B, out_chans/3, 3, H, W)."""
        executor = self._executor(x)
        images = executor.convolve(self.conv_first, x.flatten(0, 1))  # (B*T, C', H, W)
        shallow = images.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])  # (B, T, H, W, C')
        features = self._body(shallow, [None] * 4, fuse, executor).permute(0, 1, 4, 2, 3)  # (B, T, C', H, W)
        features = F.leaky_relu(self.linear_fuse(features.flatten(1, 2)), 0.2)  # (B, 64, H, W)
        return self.conv_last(F.pad(features, (3, 3, 3, 3), mode="reflect")).unflatten(1, (-1, RGB))

    def _executor(self, x: Tensor) -> Executor:
        """For frames (B, T, C, H, W) whose sides are padded."""
        if self.compute_backend == AUTO:
            full_size = (self.stage1, self.stage7, *self.stage8[1:])
            return self.automatic.choose(x, lambda: sum(p.numel() for p in self.parameters()), full_size)
        return choose_backend(self.compute_backend, x.device, compute_dtype(x))

    def _body(self, shallow: Tensor, flows: Sequence[Tensor | None], fuse: Fuse | None, executor: Executor) -> Tensor:
        """All stages after conv_first, up to conv_after_body: features (B, T, H, W, C) to the same shape.

        Args:
            flows: from `neighbour_flows`, at 1, 1/2, 1/4, 1/8 of the size; None without neighbours.
        """
        layouts = WindowLayouts(shallow.shape[0], shallow.device)
        if fuse is not None:
            shallow = fuse(0, shallow)
        x, encoded = shallow, []
        for i, stage in enumerate((self.stage1, self.stage2, self.stage3, self.stage4)):
            x = stage(x, flows[i], layouts, executor)  # (B, T, H / 2**i, W / 2**i, C)
            if fuse is not None:
                x = fuse(i + 1, x)
            encoded.append(x)
        x = self.stage5(encoded.pop(), flows[2], layouts, executor)  # (B, T, H/4, W/4, C)
        x = self.stage6(add_to(x, encoded.pop()), flows[1], layouts, executor)  # (B, T, H/2, W/2, C)
        x = self.stage7(add_to(x, encoded.pop()), flows[0], layouts, executor)  # (B, T, H, W, C)
        x = over_frames(self.stage8[0], add_to(x, encoded.pop()))  # (B, T, H, W, C of the body)
        for group in self.stage8[1:]:
            x = group(x, layouts, executor)  # (B, T, H, W, C of the body)
        return add_to(over_frames(lambda frames: self.conv_after_body(self.norm(frames)), x), shallow)

    def _shallow(self, x: Tensor, flows: Tensor | None, noise: Tensor, executor: Executor) -> Tensor:
        """conv_first of frames (B, T, C, H, W) and their neighbours' nearest pixels: (B, T, H, W, C').

        Args:
            flows: see `_with_neighbours`.
            noise: (B, T, 0 or 1, H, W).
        """

        def convolve(frames: slice) -> Tensor:
            seen = torch.cat(
                (*self._with_neighbours(x, flows, frames), noise[:, frames]), 2
            )  # (B, t, 9*C + noise, H, W)
            images = executor.convolve(self.conv_first, seen.flatten(0, 1))  # (B*t, C', H, W)
            return images.permute(0, 2, 3, 1).unflatten(0, seen.shape[:2])  # (B, t, H, W, C')

        count, widest = x.shape[1], max(self.conv_first.in_channels, self.conv_first.out_channels)
        step = chunks.FRAMES.items(x, widest * x[:, 0, 0].numel() * x.element_size()) if executor.chunked else count
        return in_chunks(convolve, count, step, dim=1)

    @staticmethod
    def _with_neighbours(x: Tensor, flows: Tensor | None, frames: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Frames of a clip, and the pixels of their next and previous frames that are nearest to the flow's targets.

        Args:
            x: (B, T, C, H, W).
            flows: (2, B, T-1, 2, H, W), or None for a single frame.
            frames: slice of t of the T frames.

        Returns:
            (B, t, C, H, W), and four pixels of each neighbour, (B, t, 4*C, H, W); zeros where there is no such frame.
        """
        if flows is None:
            zeros = x.new_zeros(*x.shape[:2], 4 * x.shape[2], *x.shape[3:])
            return x, zeros, zeros
        first, last = max(frames.start - 1, 0), min(frames.stop + 1, x.shape[1])
        clip, flows = x[:, first:last], flows[:, :, first : last - 1]  # the frames and the neighbours of their ends
        neighbours = torch.stack((clip[:, 1:], clip[:, :-1])).flatten(0, 2)  # (2*B*(t'-1), C, H, W)
        corners = flow_warp_nearest4(neighbours, flows.flatten(0, 2))  # (2*B*(t'-1), 4*C, H, W)
        ahead, behind = corners.unflatten(0, flows.shape[:3])  # (B, t'-1, 4*C, H, W) each
        frame, own = (0, 0, 0, 0, 0, 0), slice(frames.start - first, frames.stop - first)
        return clip[:, own], F.pad(ahead, (*frame, 0, 1))[:, own], F.pad(behind, (*frame, 1, 0))[:, own]

    def _check_input(self, x: Tensor) -> None:
        channels = self.in_chans + self.nonblind_denoising
        if x.dim() != 5 or x.shape[2] != channels or 0 in x.shape:
            noise = " and the noise map" if self.nonblind_denoising else ""
            raise UserError(
                f"VRT takes clips (B, T, {channels}, H, W): netG.in_chans = {self.in_chans} channels per frame{noise}; "
                f"got {tuple(x.shape)}."
            )
        if not self.pa_frames and x.shape[1] != self.clip_frames:
            raise UserError(
                f"Frame interpolation (netG.pa_frames = 0) takes netG.img_size[0] = {self.clip_frames} frames; "
                f"got {x.shape[1]}."
            )


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """(..., H, W) with both sides padded to a multiple, at the bottom and on the right, by repeating the edge."""
    bottom, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    if not bottom and not right:
        return x
    images = x.flatten(0, -4)
    return F.pad(images, (0, right, 0, bottom), mode="replicate").unflatten(0, x.shape[:-3])
