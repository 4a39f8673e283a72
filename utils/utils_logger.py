"""Logs of a run: lines in KAIR's formats, curves and pictures for TensorBoard and Weights & Biases.

    experiments/<task>/train.log              rank 0, which also writes to the terminal
    experiments/<task>/train_rank3.log        the other ranks
    experiments/<task>/tb_logger              tensorboard --logdir experiments
    experiments/<task>/panels/<clip>.png      pictures of the newest test, for scripts.inspect_run --serve

W&B runs offline unless the environment has WANDB_API_KEY; a key is read from no other place.
"""

import logging
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from logging.handlers import MemoryHandler
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from utils.evaluation.frame_result import FrameResult
from utils.evaluation.scores import Scores
from utils.user_error import UserError
from utils.utils_file import atomic_write
from utils.utils_image import imwrite_rgb, panel
from utils.utils_option import LoggerOptions
from utils.utils_timer import Timer, peak_gpu_gigabytes

logger = logging.getLogger("svrt")

HANDLER = "svrt"  # name of our handlers, by which a later call finds and replaces them
PANELS = 4  # clips per test whose pictures are logged: enough to judge a run, with small event files
PANEL_FOLDER = "panels"  # folder of the newest test's pictures
PANEL_WIDTH = 2048  # pixels; four 720p pictures side by side would be 8 MB each time


class _Format(logging.Formatter):
    """KAIR's line: "24-01-31 12:00:00.123 : message"; warnings and errors begin with their level."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d : %(message)s", "%y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.levelno >= logging.WARNING:
            record.message = f"{record.levelname}: {record.message}"
        return super().formatMessage(record)


def setup_logger(experiment_dir: Path | str | None, rank: int = 0) -> logging.Logger:
    """Appends all log records (also Python's warnings) to the experiment's log file.

    Rank 0 also writes to standard output. Calling it again replaces the files of the previous call.

    Args:
        experiment_dir: `experiments/<task>`; None: not created yet; records stay in memory until the next call.

    Returns:
        The logger "svrt" of the entry scripts; modules use `logging.getLogger(__name__)`.
    """
    root = logging.getLogger()
    waiting: list[logging.LogRecord] = []
    for handler in [handler for handler in root.handlers if handler.name == HANDLER]:
        waiting += handler.buffer if isinstance(handler, MemoryHandler) else []
        root.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [_log_file(experiment_dir, rank, waiting)]
    if rank == 0:
        handlers.append(logging.StreamHandler(sys.stdout))
    for handler in handlers:
        handler.name = HANDLER
        handler.setFormatter(_Format())
        root.addHandler(handler)
    for record in waiting if experiment_dir is not None else ():
        handlers[0].handle(record)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    return logger


def _log_file(experiment_dir: Path | str | None, rank: int, waiting: list[logging.LogRecord]) -> logging.Handler:
    """Handler of this rank's log file, or, before that exists, a handler that keeps records in memory with those
    already `waiting`."""
    if experiment_dir is None:
        memory = MemoryHandler(capacity=sys.maxsize, flushLevel=sys.maxsize)
        memory.buffer += waiting
        return memory
    folder = Path(experiment_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return logging.FileHandler(folder / ("train.log" if rank == 0 else f"train_rank{rank}.log"), encoding="utf-8")


class Writer:
    """Writes curves and pictures of a run; calls on ranks other than 0 have no effect.

    Args:
        experiment_dir: `experiments/<task>`.
        options: the `logger` section.
        rank: this process's rank.
        config: the resolved options, without secrets, for W&B.
        resumed_step: step at which the run resumes; later points of a crashed run are dropped.

    Raises:
        UserError: W&B or TensorBoard is enabled but not available; the message says what to install or set.
    """

    def __init__(
        self,
        experiment_dir: Path | str,
        options: LoggerOptions,
        rank: int = 0,
        *,
        config: Mapping[str, Any] | None = None,
        resumed_step: int = 0,
    ) -> None:
        self.folder, self._logs = Path(experiment_dir), rank == 0
        self._tensorboard: Any = None
        self._wandb: ModuleType | None = None
        # Start W&B first: it may raise UserError, before any file is written.
        if rank == 0 and options.wandb:
            self._wandb = _start_wandb(self.folder, options, config or {})
        if rank == 0 and options.tensorboard:
            self._tensorboard = _start_tensorboard(self.folder / "tb_logger", resumed_step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to the curve of each name."""
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        """Adds a uint8 (H,W,3) RGB picture."""
        if self._tensorboard is not None:
            self._tensorboard.add_image(name, picture, step, dataformats="HWC")
        if self._wandb is not None:
            self._wandb.log({name: self._wandb.Image(picture)}, step=step)

    def panels(self, step: int, images: Path | None = None) -> Callable[[FrameResult], None]:
        """Callback that logs a test: the views of the middle frame, side by side, of the first clips.

        Args:
            step: step of the tested network.
            images: folder for every restored frame, `<clip>/<frame>_<step>.png` as in KAIR, on every rank; None: none.
        """
        shown: list[str] = []

        def show(result: FrameResult) -> None:
            if result.is_middle and len(shown) < PANELS and self._logs:
                shown.append(result.clip)
                picture = _fitted(panel(result.views()))
                self.image(f"test/{result.clip}", picture, step)
                imwrite_rgb(self.folder / PANEL_FOLDER / f"{result.clip.replace('/', '_')}.png", picture)
            if images is not None:
                imwrite_rgb(images / result.clip / f"{result.frame}_{step}.png", result.restored)

        return show

    def close(self) -> None:
        """Flushes and closes; later calls have no effect."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()
        self._tensorboard = self._wandb = None


def log_train(
    writer: Writer,
    timer: Timer,
    epoch: int,
    step: int,
    total_steps: int,
    batch_size: int,
    learning_rate: float,
    measured: Mapping[str, Any],
) -> None:
    """Logs one training step as a line and as points of curves.

    Args:
        timer: the timer of the steps so far.
        epoch, step: of the run. total_steps: `train.total_iter`.
        batch_size: samples of a step, over all ranks.
        measured: losses and norms by name, numbers or tensors of one element; reading tensors waits for the GPU.
    """
    values = {name: float(value) for name, value in measured.items()}
    memory = peak_gpu_gigabytes(timer.device)
    extras = {
        "ETA": timer.eta(total_steps - step),
        "samples/s": f"{timer.samples_per_second(batch_size):.3g}",
        "data wait": f"{timer.share('data'):.0%}",
        **({} if memory is None else {"memory": f"{memory:.2f} GB"}),
    }
    logger.info("%s", train_line(epoch, step, learning_rate, values, extras))
    curves = {f"train/{name}": value for name, value in values.items()}
    curves |= {"train/learning_rate": learning_rate, "train/epoch": epoch}
    if seconds := timer.seconds():
        curves |= {f"time/{name}": value for name, value in seconds.items()}
        curves["time/samples_per_second"] = timer.samples_per_second(batch_size)
    if memory is not None:
        curves["time/memory_gb"] = memory
    writer.scalars(curves, step)


def log_validation(writer: Writer, epoch: int, step: int, scores: Scores) -> None:
    """Logs a test's scores per clip and their mean in KAIR's lines, and the means over clips and over frames as curves;
    nothing without scores."""
    clips = scores.clips()
    if not clips:
        return
    for index, (name, metrics) in enumerate(clips.items()):
        logger.info("%s", clip_line(name, index, len(clips), metrics))
    over_clips, over_frames = scores.mean_over_clips(), scores.mean_over_frames()
    logger.info("%s", average_line(epoch, step, over_clips))
    curves = {f"test/{name}": value for name, value in over_clips.items()}
    writer.scalars(curves | {f"test_over_frames/{name}": value for name, value in over_frames.items()}, step)


def train_line(
    epoch: int, step: int, learning_rate: float, values: Mapping[str, float], extras: Mapping[str, str] | None = None
) -> str:
    """KAIR's line of a step, then ours: "<epoch:  0, iter:     200, lr:4.000e-04> G_loss: 1.234e-02 ETA: 1:00:00"."""
    parts = [f"<epoch:{epoch:3d}, iter:{step:8,d}, lr:{learning_rate:.3e}>"]
    parts += [f"{name}: {value:.3e}" for name, value in values.items()]
    parts += [f"{name}: {text}" for name, text in (extras or {}).items()]
    return " ".join(parts)


def clip_line(clip: str, index: int, number: int, metrics: Mapping[str, float]) -> str:
    """KAIR's line of a tested clip: "Testing clip                 ( 0/11) - PSNR: 30.00 dB; ..."."""
    return f"Testing {clip:20s} ({index:2d}/{number}) - {metrics_text(metrics)}"


def average_line(epoch: int, step: int, metrics: Mapping[str, float]) -> str:
    """KAIR's line of a whole test; it lacks the ">" as in KAIR, because scripts parse it."""
    return f"<epoch:{epoch:3d}, iter:{step:8,d} Average {metrics_text(metrics)}"


def metrics_text(metrics: Mapping[str, float]) -> str:
    """The measured ones of "PSNR: 30.00 dB; SSIM: 0.9000; PSNR_Y: 31.00 dB; SSIM_Y: 0.9100"."""
    texts = {
        "psnr": "PSNR: {:.2f} dB",
        "ssim": "SSIM: {:.4f}",
        "psnr_y": "PSNR_Y: {:.2f} dB",
        "ssim_y": "SSIM_Y: {:.4f}",
    }
    return "; ".join(text.format(metrics[name]) for name, text in texts.items() if name in metrics)


def _fitted(picture: np.ndarray) -> np.ndarray:
    """A picture reduced to at most `PANEL_WIDTH` columns, as a run logs hundreds of them."""
    height, width = picture.shape[:2]
    if width <= PANEL_WIDTH:
        return picture
    return cv2.resize(picture, (PANEL_WIDTH, round(height * PANEL_WIDTH / width)), interpolation=cv2.INTER_AREA)


def _start_tensorboard(folder: Path, resumed_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # imported on demand, as it is slow
    except ImportError as error:
        raise UserError("logger.tensorboard: pip install tensorboard, or set it to false") from error
    return SummaryWriter(str(folder), purge_step=resumed_step + 1 if resumed_step else None)


def check_logger(options: LoggerOptions) -> None:
    """Checks that W&B, if enabled, can be started.

    Raises:
        UserError: its package is missing or, for "online", its key.
    """
    if not options.wandb:
        return
    try:
        import wandb  # noqa: F401  an optional package
    except ImportError as error:
        raise UserError("logger.wandb: pip install wandb, or set it to false") from error
    if options.wandb_mode == "online" and not os.environ.get("WANDB_API_KEY"):
        raise UserError(
            'logger.wandb_mode: "online" needs WANDB_API_KEY in the environment; leave it out to run offline'
        )


def _start_wandb(folder: Path, options: LoggerOptions, config: Mapping[str, Any]) -> ModuleType:
    """Starts or resumes the experiment's W&B run."""
    check_logger(options)
    import wandb  # an optional package

    path = folder / "wandb_id.txt"
    if not path.exists():
        with atomic_write(path) as file:
            file.write(uuid.uuid4().hex[:8])
    wandb.init(
        project=options.wandb_project,
        name=options.wandb_name or folder.name,
        entity=options.wandb_entity,
        dir=str(folder),
        config=dict(config),
        mode=options.wandb_mode or ("online" if os.environ.get("WANDB_API_KEY") else "offline"),
        id=path.read_text(encoding="utf-8").strip(),
        resume="allow",
    )
    return wandb
