"""VRT with a spike branch: the voxel branch of S-VRT. RGB goes through VRT; voxels of spikes, at the sensor's own
resolution, go through a spike encoder. Spike features are added to the output of VRT's first convolution, and fused
with the outputs of its four encoder stages, at four sizes.

Chosen by `"net_type": "vrt_spike"`; built in `models/select_network.py`. Shapes at every step: docs/architecture.md.
Train: `python main_train_vrt.py --opt options/demo/quickstart_voxel.json`.

Legend: B batch, T frames, K bins, C channels, H height, W width (of frames), h, w (of spike pictures).
"""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.layers.ops.chunks import add_to
from models.layers.spike.spike_encoder3d import SpikeEncoder3D, registers
from models.network_vrt import SIZE_MULTIPLE, VRT
from utils.user_error import UserError

logger = logging.getLogger(__name__)

VRT_PREFIX = "vrt."  # keys of the RGB network's weights begin with this: the attribute's name


class VRTWithSpike(nn.Module):
    """VRT whose encoder features are fused with spike features.

    VRT adds `conv_first`'s output, and with it the early fusion's, to the features before `conv_last`. Through this
    short path, which the concat branch has too, spikes reach the picture without passing the whole body.

    Args:
        vrt: the network for RGB.
        spike_encoder: voxels to features at four sizes.
        temporal_attention: four feature tensors to four of the same shapes.
        early_fusion: spike features (B, T, H, W, C) at the frames' size to the term added to `conv_first`'s output.
            Initialised at random, or at zero if a plain VRT's checkpoint is loaded.
        fusion: called as fusion(stage, frames, spikes) for stage 0..3 with features (B, T, H, W, C) of both.
    """

    def __init__(
        self,
        vrt: VRT,
        spike_encoder: SpikeEncoder3D,
        temporal_attention: nn.Module,
        early_fusion: nn.Module,
        fusion: nn.Module,
    ) -> None:
        super().__init__()
        self.vrt = vrt
        self.spike_encoder = spike_encoder
        self.temporal_attention = temporal_attention
        self.early_fusion = early_fusion
        self.fusion = fusion
        self._told_resize = False

    @property
    def conv_last(self) -> nn.Module:
        """The convolution that computes the output, for `init_type`."""
        return self.vrt.conv_last

    def forward(self, x: Tensor, spikes: Tensor | None = None) -> Tensor:
        """Restores a clip.

        Args:
            x: frames (B, T, 3, H, W) in [0, 1], any T, H and W.
            spikes: voxels (B, T, K, h, w) of the same frames and the same scene.

        Returns:
            (B, T, 3, H*upscale, W*upscale), see `VRT.forward`.

        Raises:
            UserError: spikes are missing or do not belong to the frames.
        """
        if spikes is None:
            raise UserError(
                'netG.net_type "vrt_spike" takes spikes beside the frames; set datasets.*.input_pack_mode to "dual", '
                'or use net_type "vrt", which takes them as channels.'
            )
        if spikes.dim() != 5 or spikes.shape[:2] != x.shape[:2]:
            raise UserError(
                f"Spikes (B, T, K, h, w) need the frames' B and T, {tuple(x.shape[:2])}; got {tuple(spikes.shape)}."
            )
        size = (x.shape[-2], x.shape[-1])
        self._tell_resize(spikes, size)
        padded = (size[0] + -size[0] % SIZE_MULTIPLE, size[1] + -size[1] % SIZE_MULTIPLE)
        # (B, T', H', W', C) at 1, 1/2, 1/4, 1/8 of the padded size
        pyramid = self.temporal_attention(self.spike_encoder(spikes, size, padded))

        def fuse(stage: int, features: Tensor) -> Tensor:
            if stage == 0:
                return add_to(self.early_fusion(pyramid[0]), features)  # (B, T, H, W, C)
            # `pop` frees the memory of a scale, which is used for the last time here.
            return self.fusion(stage - 1, features, pyramid.pop(0))  # (B, T, H', W', C)

        return self.vrt(x, fuse)  # (B, T, 3, H*upscale, W*upscale)

    def widen(self, state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """A plain VRT's checkpoint adapted to this network, and the widened keys (`VRT.widen`).

        Its weights become `vrt.*`; the spike branch keeps its own weights, except the early fusion, which becomes zero.
        A checkpoint with `vrt.*` is returned unchanged. Keys and shapes are checked later, by `load_strict`.
        """
        if any(key.startswith(VRT_PREFIX) for key in state_dict):
            return dict(state_dict), []
        weights, widened = self.vrt.widen(state_dict)
        new = {key: value for key, value in self.state_dict().items() if not key.startswith(VRT_PREFIX)}
        # The early fusion starts at zero: it adds nothing to conv_first's output.
        new |= {key: torch.zeros_like(value) for key, value in new.items() if key.startswith("early_fusion.")}
        logger.info(
            "Checkpoint of a plain VRT: it becomes %s*; the %d tensors of the spike branch (%s) are new",
            VRT_PREFIX,
            len(new),
            ", ".join(dict.fromkeys(key.partition(".")[0] for key in new)),
        )
        return {f"{VRT_PREFIX}{key}": value for key, value in weights.items()} | new, [VRT_PREFIX + w for w in widened]

    def _tell_resize(self, spikes: Tensor, size: tuple[int, int]) -> None:
        """Warns once if the spikes are resized before the encoder."""
        ratio = self.spike_encoder.ratio
        if self._told_resize or registers(spikes.shape[-2:], size, ratio):
            return
        self._told_resize = True
        logger.warning(
            "Spikes of %d x %d for frames of %d x %d are resized to 1/%d of the frames (netG.spike_ratio)",
            *spikes.shape[-2:],
            *size,
            ratio,
        )
