"""For torch.hub: `torch.hub.load(checkout, "guided", source="local")` is `models.pretrained.load("guided")`."""

from typing import Any

dependencies = ["torch", "numpy", "cv2", "pydantic"]


def guided(**options: Any) -> Any:
    """The light network with its shipped weights: `restorer(frames, spikes)`, see `models.pretrained.SpikeRestorer`."""
    from models.pretrained import load  # torch.hub reads this file before it knows the packages

    return load("guided", **options)


def spike_refine(**options: Any) -> Any:
    """Pictures of spikes alone with shipped weights: `pictures(spikes)`, see `models.pretrained.SpikeReconstructor`."""
    from models.pretrained import load  # as above

    return load("spike_refine", **options)
