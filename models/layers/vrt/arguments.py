"""Rules for VRT's arguments, used by the constructor and by the option loader through `VRT.faults`.

A rule is called with the arguments that its parameters name, and yields (argument, fault). It is not called if one of
these arguments is missing, or has a wrong type in the option file.
"""

from collections.abc import Sequence

from models.layers.ops.frame_conv import RGB, UPSCALES
from utils.utils_registry import Faults

STAGE_COUNT = 7  # stages 1 to 7: encoder and decoder; the entries after them are the groups of stage 8
# The position code of mutual attention splits the channels into four: sine and cosine, each for y and x.
POSITION_PARTS = 4
# Swin Transformer V2 (arXiv 2111.09883) clamps its learned factor of the scores at 100; above, softmax is an argmax.
MAX_QK_SCALE = 100.0
# The published models use 2, other transformers up to 8. The limit rejects typing errors before they are allocated.
MAX_MLP_RATIO = 64.0


def _upscale(upscale: int) -> Faults:
    if upscale not in UPSCALES:
        yield "upscale", f"choices: {', '.join(map(str, UPSCALES))}; got {upscale}"


def _in_chans(in_chans: int) -> Faults:
    if in_chans < RGB:
        yield "in_chans", f"at least {RGB}, as RGB comes first; got {in_chans}"


def _img_size(img_size: Sequence[int]) -> Faults:
    if len(img_size) != 3 or min(img_size) < 1:
        yield "img_size", f"[frames, height, width], each at least 1; got {list(img_size)}"


def _window_size(window_size: Sequence[int]) -> Faults:
    if len(window_size) != 3 or min(window_size) < 1:
        yield "window_size", f"[frames, height, width], each at least 1; got {list(window_size)}"


def _lengths(depths: Sequence[int], embed_dims: Sequence[int], num_heads: Sequence[int]) -> Faults:
    if not len(depths) == len(embed_dims) == len(num_heads) or len(depths) <= STAGE_COUNT:
        yield (
            "depths",
            f"depths, embed_dims and num_heads have one entry per stage ({STAGE_COUNT}) and per group after them (at "
            f"least 1); got {len(depths)}, {len(embed_dims)} and {len(num_heads)}",
        )


def _depths(depths: Sequence[int]) -> Faults:
    if any(depth < 0 for depth in depths):
        yield "depths", f"numbers of blocks, 0 or more; got {list(depths)}"


def _embed_dims(embed_dims: Sequence[int]) -> Faults:
    if any(dim < 1 for dim in embed_dims):
        yield "embed_dims", f"numbers of channels, 1 or more; got {list(embed_dims)}"
        return
    if len(set(embed_dims[:STAGE_COUNT])) > 1 or len(set(embed_dims[STAGE_COUNT:])) > 1:
        yield "embed_dims", f"the first {STAGE_COUNT} are equal, and so are the others; got {list(embed_dims)}"
    if embed_dims and embed_dims[0] % POSITION_PARTS:
        yield "embed_dims", f"the first is a multiple of {POSITION_PARTS}; got {embed_dims[0]}"


def _num_heads(embed_dims: Sequence[int], num_heads: Sequence[int]) -> Faults:
    if any(heads < 1 for heads in num_heads):
        yield "num_heads", f"numbers of heads, 1 or more; got {list(num_heads)}"
        return
    for i, (dim, heads) in enumerate(zip(embed_dims, num_heads, strict=False)):
        if dim % heads:
            yield "num_heads", f"each divides its embed_dims; {heads} does not divide embed_dims[{i}] = {dim}"
            return


def _indep_reconsts(depths: Sequence[int], indep_reconsts: Sequence[int]) -> Faults:
    # With too few depths there are no valid positions; `_lengths` reports that fault.
    if len(depths) > STAGE_COUNT and any(not STAGE_COUNT <= i < len(depths) for i in indep_reconsts):
        yield "indep_reconsts", f"positions {STAGE_COUNT} to {len(depths) - 1} of depths; got {list(indep_reconsts)}"


def _mul_attn_ratio(mul_attn_ratio: float) -> Faults:
    if not 0 <= mul_attn_ratio <= 1:
        yield "mul_attn_ratio", f"a share, from 0 to 1; got {mul_attn_ratio}"


def mlp_ratio_faults(mlp_ratio: float, channels: Sequence[int]) -> Faults:
    """Faults of an MLP's ratio of hidden to outer channels, for each number of outer `channels`."""
    if not 0 < mlp_ratio <= MAX_MLP_RATIO or any(0 < dim and int(dim * mlp_ratio) < 1 for dim in channels):
        limits = f"above 0 and up to {MAX_MLP_RATIO:g}, with at least 1 hidden channel"
        yield "mlp_ratio", f"hidden over outer channels, {limits}; got {mlp_ratio}"


def _mlp_ratio(mlp_ratio: float, embed_dims: Sequence[int]) -> Faults:
    yield from mlp_ratio_faults(mlp_ratio, embed_dims)


def _qk_scale(qk_scale: float | None) -> Faults:
    if qk_scale is not None and not 0 < qk_scale <= MAX_QK_SCALE:
        yield "qk_scale", f"above 0 and up to {MAX_QK_SCALE:g}, or null for head_dim**-0.5; got {qk_scale}"


def _drop_path_rate(drop_path_rate: float) -> Faults:
    if not 0 <= drop_path_rate < 1:
        yield "drop_path_rate", f"a probability, from 0 to below 1; got {drop_path_rate}"


def _pa_frames(pa_frames: int) -> Faults:
    if pa_frames not in (0, 2, 4, 6):
        yield "pa_frames", f"choices: 0, 2, 4, 6; got {pa_frames}"


def _out_chans(out_chans: int, pa_frames: int) -> Faults:
    if pa_frames and out_chans != RGB:
        yield "out_chans", f"{RGB}, as the output is added to the RGB input; got {out_chans}"
    elif not pa_frames and (out_chans < RGB or out_chans % RGB):
        yield "out_chans", f"{RGB} for each interpolated frame; got {out_chans}"


def _interpolation(pa_frames: int, upscale: int, nonblind_denoising: bool) -> Faults:
    if pa_frames == 0 and (upscale != 1 or nonblind_denoising):
        yield "pa_frames", "0 is frame interpolation, with upscale 1 and without nonblind_denoising"


def _deformable_groups(deformable_groups: int, pa_frames: int, embed_dims: Sequence[int]) -> Faults:
    if pa_frames not in (2, 4, 6) or not embed_dims or embed_dims[0] < 1:
        return
    reach, dim = pa_frames // 2, embed_dims[0]
    if deformable_groups < 1 or deformable_groups % reach or dim * reach % deformable_groups or dim % reach:
        yield (
            "deformable_groups",
            f"a multiple of pa_frames / 2 = {reach} that divides embed_dims[0] * {reach} = {dim * reach}; got "
            f"{deformable_groups} (and embed_dims[0] is a multiple of {reach})",
        )


RULES = (
    _upscale, _in_chans, _out_chans, _img_size, _window_size, _lengths, _depths, _embed_dims, _num_heads,
    _indep_reconsts, _mul_attn_ratio, _mlp_ratio, _qk_scale, _drop_path_rate, _pa_frames, _interpolation,
    _deformable_groups,
)  # fmt: skip
