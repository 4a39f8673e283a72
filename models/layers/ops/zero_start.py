"""Layers that give zero until training moves them: what they are added to starts as it would be without them.

Their gradient is not zero, so they move in the first step, and everything before them from the second on.
"""

from torch import nn


def zero_start(layer: nn.Module) -> None:
    """Sets all parameters of a layer to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
