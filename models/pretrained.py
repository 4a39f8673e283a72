"""Restoration and reconstruction in one line of Python, with weights that come with the code.

    from models.pretrained import load
    restorer = load("guided")
    sharp = restorer(frames, spikes)                    # numpy or torch in, the same out
    sharp = restorer(frames, spikes, threshold=2.0, exposures=[(0, 49), (56, 105)])
    pictures = load("spike_refine")(spikes, instants=[40, 48])          # of spikes alone

Like the entry scripts, this module connects options, spike encoding and network, so it imports `data` too.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar, overload

import numpy as np
import torch
from torch import Tensor, nn

import data.select_dataset  # noqa: F401  registers what option files name
from data.spike.encoding import SpikeEncoding, build_encoding
from data.spike.reconstruction.automatic import automatic_threshold
from data.spike.sync import ExposureWindow
from models.network_spikling import generate_stream
from models.select_network import define_G, load_weights
from utils.exposure_times import times_faults
from utils.options.tester_flags import OWN_TASKS, shipped_weights, task_file
from utils.user_error import UserError
from utils.utils_option import Options, load_options
from utils.utils_registry import raise_faults

Array = TypeVar("Array", np.ndarray, Tensor)
Frames = Sequence[tuple[int, int]]


@overload
def load(name: Literal["guided"] = "guided", device: str | torch.device = "cpu") -> "SpikeRestorer": ...
@overload
def load(name: Literal["spike_refine"], device: str | torch.device = "cpu") -> "SpikeReconstructor": ...
@overload
def load(name: str, device: str | torch.device = "cpu") -> "SpikeRestorer | SpikeReconstructor": ...


def load(name: str = "guided", device: str | torch.device = "cpu") -> "SpikeRestorer | SpikeReconstructor":
    """A network with shipped weights, as a function of arrays.

    Args:
        name: a model whose weights are shipped with the code: "guided" restores blurred frames with spikes,
            "spike_refine" reconstructs pictures from spikes alone.
        device: device of the network.

    Raises:
        UserError: no such model, or its weights are missing or changed.
    """
    opt, network = shipped_network(name)
    network = network.to(device)
    if opt.model == "spikling":
        return SpikeReconstructor(network)
    assert opt.datasets.test is not None, name
    return SpikeRestorer(network, opt.datasets.test.arguments()["spike"])


def shipped_network(name: str) -> tuple[Options, nn.Module]:
    """Options and network, for inference, of a model whose weights come with the code; raises as `load` does."""
    path = task_file(name)
    if path.parent != OWN_TASKS:
        raise UserError(f"{name}: its weights do not come with the code; use main_test_vrt.py --task {name} --download")
    opt = load_options(path)
    network = define_G(opt.netG)
    load_weights(network, shipped_weights(opt), prefer_ema=True)
    return opt, network.eval()


class SpikeReconstructor:
    """A network that reconstructs pictures from spikes, as a function of arrays.

    Args:
        network: takes (B,T,W,H,W') windows of spikes, including windows that reach outside the stream.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(
        self, spikes: Array, *, threshold: float | None = None, instants: Sequence[int] | None = None
    ) -> Array:
        """Reconstructs pictures at instants of a stream.

        Args:
            spikes: (S,h,w) of 0 and 1, numpy or torch: the whole stream, upright.
            threshold: the camera's; intensity = firing rate x threshold. None: chosen so that the brightest percent
                has intensity 0.9.
            instants: spike frames of the pictures. None: the middle one.

        Returns:
            (T,h,w) uint8, numpy or torch as `spikes`.

        Raises:
            UserError: an array of another shape or kind, or instants outside the stream.
        """
        events = _as_spikes(spikes)  # (S,h,w) uint8
        if threshold is None:
            threshold = automatic_threshold(lambda begin, end: events[begin:end], len(events))
        before = int(self.network.in_chans) // 2  # type: ignore[arg-type]
        starts = [instant - before for instant in ([len(events) // 2] if instants is None else instants)]
        pictures = np.stack(list(generate_stream(self.network, events, starts, threshold)))
        return torch.from_numpy(pictures).to(spikes.device) if isinstance(spikes, Tensor) else pictures


class SpikeRestorer:
    """A network that restores each frame from its spikes, as a function of arrays.

    Args:
        network: takes (B,T,3,H,W) and (B,T,K,h,w).
        spike: the `spike` section of the options that it was trained with.
    """

    def __init__(self, network: nn.Module, spike: dict[str, Any]) -> None:
        self.network, self.spike = network, spike

    def __call__(
        self,
        frames: Array,
        spikes: Any,
        *,
        threshold: float | None = None,
        exposures: Frames | None = None,
        instants: Sequence[int] | None = None,
        times: Sequence[float] | None = None,
    ) -> Array:
        """Restores frames one after another, each at one instant of its exposure, or at several.

        Args:
            frames: blurred RGB. numpy: (T,H,W,3) or (H,W,3); torch: (T,3,H,W) or (3,H,W). uint8, uint16, or float in
                [0,1].
            spikes: (S,h,w) of 0 and 1, numpy or torch: the whole stream, upright, of the frames' field of view.
            threshold: the spike camera's: intensity = firing rate x threshold. None: estimated, so that the mean
                intensity over the exposures equals the frames' mean gray value.
            exposures: spike frames [begin, end) of each frame. None: frame k of T has [k S / T, (k + 1) S / T).
            instants: spike frame of each restored picture. None: the middle of each exposure.
            times: N instants at which every frame is restored, ascending shares of its exposure, 0 at its first spike
                frame and 1 at its last. None: `instants`.

        Returns:
            The restored frames at the instants, of the kind, shape and type of `frames`. With `times`, N pictures
            replace each frame: (T,N,H,W,3) or (T,N,3,H,W), without T if `frames` has none.

        Raises:
            UserError: arrays of another shape or kind, exposures outside the stream, or times out of order.
        """
        blurred, scale = _as_tensor(frames)  # (T,3,H,W) float32
        events = _as_spikes(spikes)  # (S,h,w) uint8
        windows = _windows(len(blurred), len(events), exposures, instants)
        encoding = build_encoding(self.spike, threshold or estimated_threshold(blurred, events, windows))
        if times is not None and instants is not None:
            raise UserError("times and instants: both say what is restored; give one of them")
        raise_faults("", times_faults(times or [0.5]))
        places = [[window] if times is None else [window.at(time) for time in times] for window in windows]
        pictures = [
            torch.stack([self._restore(frame, events, encoding, window) for window in of_frame])
            for frame, of_frame in zip(blurred, places, strict=True)
        ]
        restored = torch.stack(pictures).clamp(0, 1) * scale  # (T,N,3,H,W)
        return _like(restored, frames, several=times is not None)

    def _restore(self, frame: Tensor, spikes: np.ndarray, encoding: SpikeEncoding, window: ExposureWindow) -> Tensor:
        """(3,H,W) float32 to the same, on the CPU."""
        device = next(self.network.parameters()).device
        channels = torch.from_numpy(encoding(spikes, window))
        with torch.inference_mode():
            return self.network(frame[None, None].to(device), channels[None, None].to(device))[0, 0].float().cpu()


def estimated_threshold(frames: Tensor, spikes: np.ndarray, windows: Sequence[ExposureWindow]) -> float:
    """The threshold that gives spikes (S,h,w) the mean intensity of frames (T,3,H,W) in [0,1], as BT.601 gray.

    Raises:
        UserError: no spike in any of the exposures.
    """
    rate = float(np.mean([spikes[window.begin : window.end].mean() for window in windows]))
    if rate == 0:
        raise UserError("spikes: none in any of the exposures; check exposures, or the stream")
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return max(float((frames * weights).sum(1).mean()) / rate, 1e-3)


def _windows(
    frames: int, length: int, exposures: Frames | None, instants: Sequence[int] | None
) -> list[ExposureWindow]:
    """The exposure of every frame in a stream of `length` spike frames."""
    if exposures is None:
        if length < frames:
            raise UserError(f"spikes: {length} spike frames for {frames} frames; at least one for each is needed")
        exposures = [(k * length // frames, (k + 1) * length // frames) for k in range(frames)]
    if len(exposures) != frames or (instants is not None and len(instants) != frames):
        raise UserError(f"exposures and instants: one for each of {frames} frames is needed, got {len(exposures)}")
    centers = [(begin + end) // 2 for begin, end in exposures] if instants is None else instants
    windows = [ExposureWindow(begin, end, center) for (begin, end), center in zip(exposures, centers, strict=True)]
    for window in windows:
        window.check(length)
    return windows


def _as_tensor(frames: Any) -> tuple[Tensor, int]:
    """Frames as (T,3,H,W) float32 in [0,1], and the value that stands for 1 in `frames`."""
    planes = torch.from_numpy(np.ascontiguousarray(frames)) if isinstance(frames, np.ndarray) else frames
    if not isinstance(planes, Tensor) or planes.ndim not in (3, 4):
        raise UserError("frames: (T,H,W,3) or (H,W,3) in numpy, (T,3,H,W) or (3,H,W) in torch")
    planes = planes.detach().cpu()
    planes = planes if planes.ndim == 4 else planes[None]
    planes = planes.permute(0, 3, 1, 2) if isinstance(frames, np.ndarray) else planes
    if planes.shape[1] != 3:
        raise UserError(f"frames: {tuple(frames.shape)} has {planes.shape[1]} colours where 3 are expected")
    scale = {torch.uint8: 255, torch.uint16: 65535}.get(planes.dtype, 1)
    if scale == 1 and not planes.is_floating_point():
        raise UserError(f"frames: {planes.dtype}; uint8, uint16, or float in [0,1] is needed")
    return planes.float() / scale, scale


def _as_spikes(spikes: Any) -> np.ndarray:
    """Spikes as (S,h,w) uint8."""
    bits = spikes.detach().cpu().numpy() if isinstance(spikes, Tensor) else np.asarray(spikes)
    if bits.ndim != 3 or 0 in bits.shape or not np.isin(bits, (0, 1)).all():
        raise UserError(f"spikes: (S,h,w) of 0 and 1 is needed, not {bits.dtype} of shape {bits.shape}")
    return bits.astype(np.uint8)


def _like(restored: Tensor, frames: Array, several: bool) -> Array:
    """(T,N,3,H,W) float32, in the range of `frames`, converted to their kind, shape and type; N only if `several`."""
    shape = list(frames.shape)
    if several:
        shape.insert(len(shape) - 3, restored.shape[1])
    if isinstance(frames, Tensor):
        restored = restored if frames.is_floating_point() else restored.round()
        return restored.reshape(shape).to(frames.dtype).to(frames.device)
    pictures = restored.permute(0, 1, 3, 4, 2).numpy().reshape(shape)
    return (pictures if frames.dtype.kind == "f" else np.rint(pictures)).astype(frames.dtype)
