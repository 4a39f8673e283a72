"""A network as one file: for ONNX runtimes, or its weights in half precision.

    python -m scripts.export --task guided guided.onnx
    python -m scripts.export --opt options/svrt/train_guided_s.json --checkpoint experiments/train_guided_s guided.pth

The ONNX file takes `frames` (N,3,H,W) in [0,1] and `spikes` (N,K,h,w), the channels of representation "guided", and
gives `restored` (N,3,H,W), for any N, H and W; h and w are H / ratio and W / ratio. Before it is written, it is checked
against PyTorch to 1e-4, at another size than it was traced with. A `.pth` holds `params` in float16, with its SHA-256
beside it.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import export_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(export_parser(__doc__ or ""))

import numpy as np
import torch
from torch import Tensor, nn

import data.select_dataset  # noqa: F401  registers what option files name
from models.layers.spike.ratios import CONSTANTS
from models.network_guided import Guided
from models.select_network import define_G, load_weights
from utils.options.tester_flags import checkpoint_of, task_file
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_file import atomic_write, sha256_of, write_sha256
from utils.utils_option import load_options

TOLERANCE = 1e-4
OPSET = 18


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code: 0 done, 2 a mistake in what was asked for."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    arguments = export_parser(__doc__ or "").parse_args(argv)
    arguments.download = None  # the tester's flag
    return run_command(lambda: export(arguments))


def export(arguments: argparse.Namespace) -> None:
    """Loads the network and writes the file.

    Raises:
        UserError: another kind of file, or a network that can't be exported.
    """
    suffix = arguments.output.suffix
    if suffix not in (".onnx", ".pth"):
        raise UserError(f"{arguments.output}: the name ends in .onnx or .pth")
    opt = load_options(arguments.opt or task_file(arguments.task), arguments.set)
    network = define_G(opt.netG).eval()
    load_weights(network, checkpoint_of(opt, arguments), prefer_ema=True)
    if suffix == ".pth":
        write_weights(network, arguments.output)
    elif isinstance(network, Guided):
        write_onnx(network, opt.netG.spike_bins, arguments.ratio, arguments.output)
    else:
        raise UserError(f"netG.net_type: {opt.netG.net_type} can't be written as ONNX; guided can")
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.2f} MB, SHA-256 {sha256_of(arguments.output)}")


def write_weights(network: nn.Module, path: Path) -> None:
    """`params` in float16, which rounds a weight by at most 1/2048 of itself."""
    weights = {name: tensor.detach().half().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_write(path, "wb") as file:
        torch.save({"params": weights}, file)
    write_sha256(path, sha256_of(path))


class OneFrame(nn.Module):
    """The network on (N,3,H,W) and (N,K,h,w), without the axis of time."""

    def __init__(self, network: Guided) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, spikes: Tensor) -> Tensor:
        """(N,3,H,W) restored."""
        return self.network.restore(frames, spikes)


def write_onnx(network: Guided, bins: int, ratio: int, path: Path) -> None:
    """Traces the network, checks the result in ONNX Runtime, and writes it.

    Raises:
        UserError: onnx or onnxruntime is not installed, or its result differs.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install onnx onnxruntime") from None
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of the exporter that traces
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # sizes are compared: the ratio is fixed
    model = OneFrame(network)
    temporary = path.with_name(f".{path.name}.tmp")
    axes = {
        "frames": {0: "N", 2: "H", 3: "W"},
        "spikes": {0: "N", 2: "h", 3: "w"},
        "restored": {0: "N", 2: "H", 3: "W"},
    }
    try:
        torch.onnx.export(
            model,
            _example(bins, 16, 12, ratio),
            str(temporary),
            input_names=["frames", "spikes"],
            output_names=["restored"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
        example = _example(bins, 11, 17, ratio)
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        (restored,) = session.run(
            None, dict(zip(("frames", "spikes"), (part.numpy() for part in example), strict=True))
        )
        with torch.inference_mode():
            difference = float(np.abs(restored - model(*example).numpy()).max())
        if not difference <= TOLERANCE:
            raise UserError(f"{path}: ONNX Runtime's result differs by {difference:.1e}, more than {TOLERANCE:.0e}")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"largest difference to PyTorch: {difference:.1e}")


def _example(bins: int, rows: int, columns: int, ratio: int) -> tuple[Tensor, Tensor]:
    """Random frames (1,3,H,W) and channels (1,K,rows,columns) like real ones."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(1, 3, ratio * rows, ratio * columns, generator=generator)
    spikes = torch.rand(1, bins, rows, columns, generator=generator)
    spikes[:, -CONSTANTS] = 0.04  # the intensity of one spike
    return frames, spikes


if __name__ == "__main__":
    sys.exit(main())
