"""SpikeCV's functions under SpikeCV's names: the lines of its scripts that use these work with the import changed.

    from scripts.spikecv import SpikeStream, TFSTP, data_parameter_dict, obtain_reconstruction_video

    parameters = data_parameter_dict("recVidarReal2019/classA/car-100kmh", "raw")
    spikes = SpikeStream(**parameters).get_block_spikes(begin_idx=500, block_len=1500)
    images = TFSTP(parameters["spike_h"], parameters["spike_w"], "cpu").spikes2images_offline(spikes)
    obtain_reconstruction_video(images, "results/car-100kmh_tfstp.avi", **parameters)

Arrays are uint8 where SpikeCV's are bool. SpikeCV is not needed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.spike.reconstruction.compat import TFI, TFP, TFSTP
from scripts.spikes.video import write_video
from utils.spike_loader import LABEL_DATA_TYPE, SpikeStream, data_parameter_dict, write_spikes
from utils.user_error import UserError

__all__ = [
    "LABEL_DATA_TYPE",
    "TFI",
    "TFP",
    "TFSTP",
    "SpikeStream",
    "SpikeToRaw",
    "ToNPYArray",
    "ToTorchTensor",
    "data_parameter_dict",
    "obtain_reconstruction_video",
    "obtain_spike_video",
]


class ToTorchTensor:
    """Spikes as a tensor.

    Args:
        type: of the tensor, a torch.dtype or a tensor class.
    """

    def __init__(self, type: Any = torch.FloatTensor) -> None:
        self.type = type

    def __call__(self, spk_data: np.ndarray | Tensor) -> Tensor:
        """The same values and shape.

        Raises:
            TypeError: neither an array nor a tensor.
        """
        if isinstance(spk_data, np.ndarray):
            spk_data = torch.from_numpy(np.ascontiguousarray(spk_data))
        return _checked(spk_data).type(self.type)


class ToNPYArray:
    """Spikes as a numpy array.

    Args:
        type: of the array's elements.
    """

    def __init__(self, type: Any = np.float64) -> None:
        self.type = type

    def __call__(self, spk_data: np.ndarray | Tensor) -> np.ndarray:
        """The same values and shape.

        Raises:
            TypeError: neither an array nor a tensor.
        """
        array = spk_data if isinstance(spk_data, np.ndarray) else _checked(spk_data).detach().cpu().numpy()
        return array.astype(self.type)


def _checked(spk_data: Tensor) -> Tensor:
    if not isinstance(spk_data, Tensor):
        raise TypeError(f"a numpy array or a tensor is needed, not {type(spk_data).__name__}")
    return spk_data


def SpikeToRaw(save_path: str | Path, SpikeSeq: np.ndarray, filpud: bool = True, delete_if_exists: bool = True) -> None:
    """Writes spikes (T, h, w) of 0 and 1 as a `.dat`; `filpud` (SpikeCV's spelling) stores rows bottom-up.

    Raises:
        UserError: the file exists and `delete_if_exists` is False, or the array holds no spikes.
    """
    if not delete_if_exists and Path(save_path).exists():
        raise UserError(f"{save_path} exists already; SpikeCV would append to it. Give delete_if_exists=True")
    write_spikes(save_path, SpikeSeq, flipud=filpud)


def obtain_spike_video(spikes: np.ndarray, video_filename: str | Path, **dataDict: Any) -> None:
    """The spikes (T, h, w) as a black and white video, see `obtain_reconstruction_video`."""
    obtain_reconstruction_video((np.asarray(spikes) != 0).astype(np.uint8) * np.uint8(255), video_filename, **dataDict)


def obtain_reconstruction_video(images: np.ndarray, video_filename: str | Path, **dataDict: Any) -> None:
    """Pictures (T, h, w) uint8 as a video of 30 per second, .avi, .mp4 or .gif.

    Args:
        dataDict: that of `data_parameter_dict`; its spike_h and spike_w have to be the pictures'. The rest is ignored.

    Raises:
        UserError: another size, no pictures, or an unknown ending.
    """
    size = tuple(dataDict.get(key, side) for key, side in zip(("spike_h", "spike_w"), images.shape[1:], strict=True))
    if size != images.shape[1:]:
        raise UserError(f"{video_filename}: spike_h, spike_w are {size}, but the pictures have {images.shape[1:]}")
    write_video(Path(video_filename), images)
