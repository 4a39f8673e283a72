"""SpyNet, optical flow by a spatial pyramid (Ranjan & Black, arXiv 1611.00850), for whole clips.

Every frame's pyramid is built once and one call gives the flow of all neighbouring frames in both directions. Weights:
`spynet_sintel_final-3d2a1287.pth` of the VRT release (plain state dictionary or {'params': ...}).

Legend: B batch, T frames, H height, W width (h, w of a level), s scale of a flow.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.ops import chunks
from models.layers.ops.chunks import in_chunks
from models.layers.ops.flow_warp import at_least_float32, flow_warp
from utils.user_error import UserError
from utils.utils_weights import load_network_weights, load_strict

LEVELS = 6  # of the pyramid, as published; the coarsest has 1/32 of the size
# Channels of the widest layer, as published; the memory of a chunk follows from it.
WIDEST = 64


class BasicModule(nn.Module):
    """Residual flow of one pyramid level: (N, 8, H, W) = first frame, warped second frame, flow -> (N, 2, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((8, 32), (32, WIDEST), (WIDEST, 32), (32, 16), (16, 2)):
            layers += [nn.Conv2d(inputs, outputs, kernel_size=7, padding=3), nn.ReLU()]
        self.basic_module = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """(N, 8, H, W) to (N, 2, H, W), in pixels of this level."""
        return self.basic_module(x.contiguous(memory_format=torch.channels_last))  # (N, 2, H, W)


class SpyNet(nn.Module):
    """Flow between neighbouring frames at scales 1, 1/2, 1/4, 1/8.

    Args:
        path: weights file. None: every level's last convolution starts at zero. The flow is then zero and warping the
            identity; the first step trains these convolutions, further steps train all layers.

    Raises:
        UserError: the file is missing or holds another network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, path: str | None = None) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList([BasicModule() for _ in range(LEVELS)])
        # ImageNet's mean and deviation, as in the training of the published weights.
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        if path is not None:
            self._load(path)
            return
        for name, parameter in self.named_parameters():
            if ".basic_module.8." in name:
                nn.init.zeros_(parameter)

    def _load(self, path: str) -> None:
        try:
            # The published file has the convolutions only.
            load_strict(self, {"mean": self.mean, "std": self.std, **load_network_weights(path)}, path)
        except UserError as error:
            raise UserError(
                f"{error}\nnetG.spynet_path takes spynet_sintel_final-3d2a1287.pth of "
                "https://github.com/JingyunLiang/VRT/releases/tag/v0.0 (MMEditing's file of the same name has other "
                "keys), or null: flow starts untrained."
            ) from error

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Flows of a clip.

        Args:
            frames: (B, T, 3, H, W), RGB in [0, 1], T >= 2.

        Returns:
            Four tensors (2, B, T-1, 2, H // s, W // s), s = 1, 2, 4, 8, in pixels of that size: [0, :, t] is the flow
            from frame t to t+1 (warping frame t+1 by it aligns it to frame t), [1, :, t] from frame t+1 to t. At least
            float32.
        """
        batch, count, _, height, width = frames.shape
        with torch.autocast(frames.device.type, enabled=False):
            pyramid = self._pyramid(at_least_float32(frames).flatten(0, 1))  # LEVELS of (B*T, 3, h, w)
            flow, flows = None, []
            for level, module in enumerate(self.basic_module):
                clip = pyramid[level].unflatten(0, (batch, count))  # (B, T, 3, h, w)
                first = torch.stack((clip[:, :-1], clip[:, 1:])).flatten(0, 2)  # (2*B*(T-1), 3, h, w)
                second = torch.stack((clip[:, 1:], clip[:, :-1])).flatten(0, 2)  # (2*B*(T-1), 3, h, w)
                flow = self._refine(module, first, second, flow)  # (2*B*(T-1), 2, h, w)
                scale = 2 ** (LEVELS - 1 - level)
                if scale <= 8:  # the coarsest features that VRT aligns
                    padded = pyramid[-1].shape[-2] // scale, pyramid[-1].shape[-1] // scale
                    flows.append(_resize(flow, (height // scale, width // scale), padded))  # (2*B*(T-1), 2, H/s, W/s)
        return [level.unflatten(0, (2, batch, count - 1)) for level in reversed(flows)]  # (2, B, T-1, 2, H/s, W/s) each

    def _pyramid(self, images: Tensor) -> list[Tensor]:
        """Normalised images (N, 3, H, W) from the coarsest level to the full size, a multiple of 32."""
        height, width = (-(-length // 32) * 32 for length in images.shape[-2:])
        if (height, width) != images.shape[-2:]:
            images = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
        levels = [(images - self.mean) / self.std]
        for _ in range(LEVELS - 1):
            levels.append(F.avg_pool2d(levels[-1], kernel_size=2, stride=2))
        return levels[::-1]

    @staticmethod
    def _refine(module: nn.Module, first: Tensor, second: Tensor, flow: Tensor | None) -> Tensor:
        """Flow of one level, (n, 2, H, W), for n pairs of images, from the coarser level's (n, 2, H/2, W/2); None:
        zero."""

        def refine(pairs: slice) -> Tensor:
            if flow is None:
                coarse = first.new_zeros(*first[pairs, :2].shape)  # (n, 2, H, W)
            else:
                coarse = 2.0 * F.interpolate(flow[pairs], scale_factor=2, mode="bilinear", align_corners=True)
            warped = flow_warp(second[pairs], coarse, "border")  # (n, 3, H, W)
            return coarse + module(torch.cat((first[pairs], warped, coarse), 1))  # (n, 2, H, W)

        step = chunks.FRAMES.items(first, WIDEST * first[0, 0].numel() * first.element_size())
        return in_chunks(refine, len(first), step)


def _resize(flow: Tensor, size: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """Flow (N, 2, ...) on the padded grid, resized to `size` and expressed in its pixels."""
    if tuple(flow.shape[-2:]) != size:
        flow = F.interpolate(flow, size=size, mode="bilinear", align_corners=False)
    # Multiply by Python numbers: a tensor of the two would be copied to the GPU, which a CUDA graph can't contain.
    return torch.stack((flow[:, 0] * (size[1] / padded[1]), flow[:, 1] * (size[0] / padded[0])), 1)
