"""Networks that turn a window of spikes into the picture at its middle, and running them over a stream.

    network = define_G(opt.netG)                          # "semi_unet" or "spike_refine"
    picture = generate(network, seq, start)               # (T,H,W) spikes -> (H,W) uint8
    for picture in generate_stream(network, stream, range(0, len(stream) - 32, 2)): ...
    python main_train_vrt.py --opt options/spikling/train_spikling.json

A network takes `L` (B,T,W,H,W'): for each of T pictures a window of W spike frames in which every spike is worth the
camera's threshold, the light that it stands for. Sums over frames are then the scene's intensity for any camera, and
one network serves all thresholds. The result is (B,T,1,H,W') in about [0,1]: the scene at frame W // 2 of the window.

Legend: B batch, T pictures, N = B*T, W spike frames of a window, H height, W' width, M mixed rates.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.spike import small_unet
from models.layers.spike.rates import gaussian_weights, interval_rates, weighted_rates
from models.layers.spike.small_unet import SmallUNet
from utils.spike_loader import SpikeStream
from utils.user_error import UserError
from utils.utils_image import tensor2uint
from utils.utils_registry import NETWORKS, Faults, check_rules, raise_faults

MULTIPLE = 4  # both networks halve height and width twice


@NETWORKS.register("semi_unet")
class SemiUNet(nn.Module):
    """Spikling's network (github.com/lshpku/spikling): a U-Net whose skip connections are sums, hence "Semi".

    Convolutions have no bias and are normalised per picture (InstanceNorm without weights), so brightness comes from
    the spikes themselves, which the last sum adds to the features. 2,895,904 parameters with 32 frames.

    Args:
        in_chans: W, spike frames in a window.
    """

    def __init__(self, *, in_chans: int = 32) -> None:
        raise_faults("netG.", self.faults(locals()))
        super().__init__()
        self.in_chans = in_chans
        self.down1 = nn.Sequential(*_conv_norm(in_chans, 64), *_conv_norm(64, 64), nn.ReLU())
        self.down2 = nn.Sequential(*_halve(64, 128), *_conv_block(128, 128))
        self.bottom = nn.Sequential(
            *_halve(128, 256), *_conv_block(256, 256), *_conv_block(256, 256), *_double(256, 128)
        )
        self.up1 = nn.Sequential(*_conv_block(128, 128), *_double(128, 64))
        self.up2 = nn.Sequential(*_conv_block(64, 64), _conv(64, in_chans), nn.Tanh())
        self.flat = nn.Conv2d(in_chans, 1, 1, bias=False)

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of constructor arguments, as (argument, sentence); absent arguments are not checked."""
        return check_rules((_window_from_one,), arguments)

    def forward(self, L: Tensor) -> Tensor:
        """(B,T,W,H,W') spikes worth their threshold -> (B,T,1,H,W'); any height and width from 5 pixels on.

        Raises:
            UserError: another number of spike frames, or a picture too small to normalise.
        """
        check_window(L, self.in_chans)
        height, width = L.shape[-2:]
        rows, columns = -height % MULTIPLE, -width % MULTIPLE
        if (height + rows) * (width + columns) <= MULTIPLE**2:
            raise UserError(f"the Semi-UNet needs more than {MULTIPLE}x{MULTIPLE} pixels, not {height}x{width}")
        # Rows and columns without spikes around the picture, as in spikling for its camera's 250 rows.
        border = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        x = 2 * F.pad(L.flatten(0, 1), border) - 1  # (N,W,H,W')
        fine = self.down1(x)  # (N,64,H,W')
        middle = self.down2(fine)  # (N,128,H/2,W'/2)
        middle = self.up1(middle + self.bottom(middle))  # (N,64,H,W')
        features = self.up2(fine + middle)  # (N,W,H,W')
        with torch.autocast(L.device.type, enabled=False):
            # Half precision would leave the picture with 8 bits.
            picture = self.flat(x.float() + features.float())  # (N,1,H,W')
        picture = picture[..., border[2] : border[2] + height, border[0] : border[0] + width]
        return (picture.unflatten(0, L.shape[:2]) + 1) / 2  # (B,T,1,H,W')


@NETWORKS.register("spike_refine")
class SpikeRefine(nn.Module):
    """Mixes firing rates pixel by pixel and corrects the mixture: a small U-Net decides how, from the rates themselves.

    What is mixed are Gaussian rates around the window's middle, from sharp to quiet, and the intervals between spikes
    (`models/layers/spike/rates.py`). The U-Net also sees rates beside the middle, which show motion, and some whose
    weights are learned. It starts as the Gaussian of 6 frames, and nothing in it depends on the camera's threshold.

    Args:
        in_chans: W, spike frames in a window.
        channels: features at full, half and quarter size.
        blocks: residual blocks at each size.
    """

    SIGMAS = (1.5, 2.5, 4.0, 6.0, 9.0, 14.0)  # frames; each about 1.5 times the one before
    START = 3  # of SIGMAS: the best single one on the GoPro and REDS samples
    ORDERS = (1, 2, 3)  # k of the intervals: a small k is sharp, a large one quiet
    BESIDE = (-20, -13, -7, -3, 3, 7, 13, 20)  # frames from the middle, closer together near it
    LEARNED = 8  # further rates with learned weights; they start around the middle

    centered: Tensor

    def __init__(
        self,
        *,
        in_chans: int = 61,
        channels: list[int] = [24, 48, 64],  # noqa: B006 (only read)
        blocks: list[int] = [1, 2, 2],  # noqa: B006 (only read)
    ) -> None:
        raise_faults("netG.", self.faults(locals()))
        super().__init__()
        self.in_chans = in_chans
        mixed = len(self.SIGMAS) + len(self.ORDERS)
        centered = gaussian_weights(in_chans, self.SIGMAS, [0.0] * len(self.SIGMAS))
        self.register_buffer("centered", centered, persistent=False)
        beside = gaussian_weights(in_chans, [3.0] * len(self.BESIDE), self.BESIDE)
        free = gaussian_weights(in_chans, [4.0] * self.LEARNED, [0.0] * self.LEARNED)
        free += 0.02 * torch.randn_like(free)
        self.learned = nn.Parameter(torch.cat([beside, free]))
        self.unet = SmallUNet(mixed + len(self.learned), channels, blocks)
        self.conv_last = nn.Conv2d(channels[0], mixed + 1, 3, padding=1)
        nn.init.zeros_(self.conv_last.weight)
        nn.init.zeros_(self.conv_last.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.conv_last.bias[self.START] = 3.0  # type: ignore[index]

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of constructor arguments, as (argument, sentence); absent arguments are not checked."""
        return check_rules((_window_of_refine, small_unet.channel_faults, small_unet.block_faults), arguments)

    def forward(self, L: Tensor) -> Tensor:
        """(B,T,W,H,W') spikes worth their threshold -> (B,T,1,H,W'); any height and width.

        Raises:
            UserError: another number of spike frames.
        """
        check_window(L, self.in_chans)
        with torch.autocast(L.device.type, enabled=False):
            # Half precision would leave a sum over frames with 8 bits, less than the picture has.
            light = L.float().flatten(0, 1)  # (N,W,H,W')
            # (N,M,H,W'): what is mixed, six Gaussian rates and three of intervals
            rates = torch.cat([weighted_rates(light, self.centered), interval_rates(light, self.ORDERS)], 1)
            seen = torch.cat([rates, weighted_rates(light, self.learned)], 1)  # (N,M+16,H,W')
        height, width = L.shape[-2:]
        border = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        features = self.unet(F.pad(seen, border, mode="replicate"))  # (N,channels[0],H,W'), padded
        # (N,M,H,W'), (N,1,H,W')
        shares, correction = self.conv_last(features)[..., :height, :width].float().split([rates.shape[1], 1], 1)
        picture = (shares.softmax(1) * rates).sum(1, keepdim=True) + correction  # (N,1,H,W')
        return picture.unflatten(0, L.shape[:2])  # (B,T,1,H,W')


def _window_from_one(in_chans: int) -> Faults:
    if in_chans < 1:
        yield "in_chans", f"spike frames in a window, at least 1; got {in_chans}"


def _window_of_refine(in_chans: int) -> Faults:
    # The rates beside the middle need their frames, and spikes are counted in bytes.
    shortest = 2 * max(SpikeRefine.BESIDE) + 1
    if not shortest <= in_chans <= 255:
        yield "in_chans", f"spike frames in a window (datasets.*.window), from {shortest} to 255; got {in_chans}"


def check_window(L: Tensor, in_chans: int) -> None:
    """Raises UserError where `L` is not (B,T,in_chans,H,W)."""
    if L.ndim != 5 or L.shape[2] != in_chans:
        raise UserError(
            f"the network takes (B,T,{in_chans},H,W), windows of {in_chans} spike frames, not {tuple(L.shape)}; "
            f"set window of the data set and netG.in_chans alike"
        )


def generate(network: nn.Module, seq: np.ndarray | SpikeStream, start: int, threshold: float = 1.0) -> np.ndarray:
    """The picture at the middle of the window that begins at frame `start`.

    Args:
        network: one of this module; its device is used, its mode is not changed.
        seq: (T,H,W) spikes, 0 or 1, or an open file of them, of which only the window is read.
        start: first frame of the window.
        threshold: of the camera: intensity = rate x threshold; 1 for spikling's simulator, 2 for Spk-GoPro.

    Returns:
        (H,W) uint8; the scene at frame start + W // 2.

    Raises:
        UserError: the window reaches outside the stream.
    """
    return next(iter(generate_stream(network, seq, [start], threshold)))


def generate_stream(
    network: nn.Module,
    seq: np.ndarray | SpikeStream,
    starts: Iterable[int],
    threshold: float = 1.0,
    batch_size: int = 4,
) -> Iterator[np.ndarray]:
    """`generate` for many windows, `batch_size` at a time; only the windows of one batch are in memory.

    Raises:
        UserError: as `generate`, when the batch with that window comes.
    """
    batch: list[int] = []
    for start in starts:
        batch.append(int(start))
        if len(batch) == batch_size:
            yield from _generate_batch(network, seq, batch, threshold)
            batch = []
    if batch:
        yield from _generate_batch(network, seq, batch, threshold)


def _generate_batch(
    network: nn.Module, seq: np.ndarray | SpikeStream, starts: list[int], threshold: float
) -> Iterator[np.ndarray]:
    length = int(network.in_chans)  # type: ignore[arg-type]
    windows = torch.from_numpy(np.stack([_window(seq, start, length) for start in starts]))
    device = next(network.parameters()).device
    with torch.inference_mode():
        pictures = network(windows.to(device).float().mul_(threshold).unsqueeze(1))
    return (tensor2uint(picture) for picture in pictures[:, 0])


def _window(seq: np.ndarray | SpikeStream, start: int, length: int) -> np.ndarray:
    """Frames [start, start + length) of the stream, (length,H,W) uint8."""
    if start < 0 or start + length > len(seq):
        raise UserError(
            f"the window [{start}, {start + length}) reaches outside the stream's [0, {len(seq)}); "
            f"a network of {length} frames can begin from 0 to {len(seq) - length}"
        )
    if isinstance(seq, SpikeStream):
        return seq.get_block_spikes(start, length)
    return np.ascontiguousarray(seq[start : start + length], dtype=np.uint8)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def _conv_norm(inputs: int, outputs: int) -> list[nn.Module]:
    return [_conv(inputs, outputs), nn.InstanceNorm2d(outputs)]


def _conv_block(inputs: int, outputs: int) -> list[nn.Module]:
    return [*_conv_norm(inputs, outputs), nn.ReLU()]


def _halve(inputs: int, outputs: int) -> list[nn.Module]:
    halving = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return [halving, nn.InstanceNorm2d(outputs), nn.ReLU()]


def _double(inputs: int, outputs: int) -> list[nn.Module]:
    doubling = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return [doubling, nn.InstanceNorm2d(outputs), nn.ReLU()]
