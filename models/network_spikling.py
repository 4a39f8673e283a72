"""Networks that turn a window of spikes into the picture at its middle, and running them over a stream.

    network = define_G(opt.netG)                          # "semi_unet", or "spike_refine" of network_spike_refine.py
    picture = generate(network, seq, start)               # (T,H,W) spikes -> (H,W) uint8
    for picture in generate_stream(network, stream, range(0, len(stream) - 32, 2)): ...
    python main_train_vrt.py --opt options/spikling/train_spikling.json

A network takes `L` (B,T,W,H,W'): for each of T pictures a window of W spike frames in which every spike is worth the
camera's threshold, the light that it stands for. Sums over frames are then the scene's intensity for any camera, and
one network serves all thresholds. The result is (B,T,1,H,W') in about [0,1]: the scene at frame W // 2 of the window.

Legend: B batch, T pictures, N = B*T, W spike frames of a window, H height, W' width.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.spike_loader import SpikeStream
from utils.spike_windows import SpikeWindows
from utils.user_error import UserError
from utils.utils_image import tensor2uint
from utils.utils_registry import NETWORKS, Faults, check_rules, raise_faults

BATCH_VALUES = 2**27  # of the windows of a batch, 0.5 GB; a picture may have more
MULTIPLE = 4  # the Semi-UNet halves height and width twice


@NETWORKS.register("semi_unet")
class SemiUNet(nn.Module):
    """Spikling's network (github.com/lshpku/spikling): a U-Net whose skip connections are sums, hence "Semi".

    Convolutions have no bias and are normalised per picture (InstanceNorm without weights), so brightness comes from
    the spikes themselves, which the last sum adds to the features. 2,895,904 parameters with 32 frames.

    Args:
        in_chans: W, spike frames in a window.
    """

    whole_pictures = True
    """Whether a tile's result differs from the whole picture's: the normalisation is over the picture."""

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


def _window_from_one(in_chans: int) -> Faults:
    if in_chans < 1:
        yield "in_chans", f"spike frames in a window, at least 1; got {in_chans}"


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
        network: with `in_chans`; its device is used, its mode is not changed.
        seq: (T,H,W) spikes, 0 or 1, or an open file of them, of which only the window is read.
        start: first frame of the window; a network with `partial_windows` takes windows of which a part lies outside
            the stream, as long as their middle does not.
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
    """`generate` for many windows, at most `batch_size` at a time; only the windows of one batch are in memory.

    Raises:
        UserError: as `generate`, when the batch with that window comes.
    """
    pixels = seq.shape[1] * seq.shape[2]
    windows = windows_of(network, seq, threshold)
    size = max(1, min(batch_size, BATCH_VALUES // (windows.length * pixels)))
    moments = (int(start) + windows.length // 2 for start in starts)
    while batch := list(itertools.islice(moments, size)):
        yield from _generate_batch(network, windows, batch)


def _generate_batch(network: nn.Module, windows: SpikeWindows, moments: list[int]) -> Iterator[np.ndarray]:
    light = torch.from_numpy(np.stack([windows.around(moment) for moment in moments]))  # (B,W,H,W')
    device = next(network.parameters()).device
    with torch.inference_mode():
        pictures = network(light.to(device).unsqueeze(1))  # (B,1,1,H,W')
    return (tensor2uint(picture) for picture in pictures[:, 0])


def windows_of(network: nn.Module, seq: np.ndarray | SpikeStream, threshold: float) -> SpikeWindows:
    """The windows of a stream that a network takes; arguments as in `generate`."""
    length = int(network.in_chans)  # type: ignore[arg-type]
    return SpikeWindows(seq, length, threshold, partial=getattr(network, "partial_windows", False))


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
