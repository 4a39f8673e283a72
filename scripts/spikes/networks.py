"""Trained networks that turn spikes into pictures: the recipe says which, a checkpoint has the weights."""

from pathlib import Path

import torch
from torch import nn

import data.select_dataset  # noqa: F401  registers what recipes name
import models.select_model  # noqa: F401
from models.select_network import define_G, load_weights
from utils.user_error import UserError
from utils.utils_option import load_options


def load_generator(recipe: Path, checkpoint: Path) -> nn.Module:
    """The network of a recipe with the checkpoint's weights, for inference, on the GPU if there is one.

    Raises:
        UserError: no such recipe or checkpoint, a network that takes no windows of spikes, or weights of another one.
    """
    options = load_options(recipe)
    if options.model != "spikling":
        raise UserError(
            f'{recipe}: its model is {options.model!r}; networks that turn spikes into pictures have "spikling"'
        )
    network = define_G(options.netG)
    load_weights(network, checkpoint, prefer_ema=True)
    return network.eval().to("cuda" if torch.cuda.is_available() else "cpu")
