"""Trained networks that turn spikes into pictures: the recipe says which, a checkpoint has the weights."""

from pathlib import Path

import torch
from torch import nn

import models.select_model  # noqa: F401  registers what recipes name
from models.pretrained import shipped_network
from models.select_network import define_G, load_weights
from utils.user_error import UserError
from utils.utils_option import load_options

SHIPPED = "spike_refine"  # its weights come with the code
RECIPE = Path(__file__).resolve().parents[2] / "options" / "spikling" / "train_spike_refine.json"


def load_generator(recipe: Path | None = None, checkpoint: Path | None = None) -> nn.Module:
    """The network of a recipe with the checkpoint's weights, for inference, on the GPU if there is one.

    Args:
        recipe: option file. None: that of the shipped network.
        checkpoint: weights. None: the shipped ones, without a recipe.

    Raises:
        UserError: no such recipe or checkpoint, a network that takes no windows of spikes, or weights of another one.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if checkpoint is None:
        if recipe is not None:
            raise UserError(f"{recipe}: a network that you have trained needs --checkpoint, its weights")
        return shipped_network(SHIPPED)[1].to(device)
    recipe = recipe or RECIPE
    options = load_options(recipe)
    if options.model != "spikling":
        raise UserError(
            f'{recipe}: its model is {options.model!r}; networks that turn spikes into pictures have "spikling"'
        )
    network = define_G(options.netG)
    load_weights(network, checkpoint, prefer_ema=True)
    return network.eval().to(device)
