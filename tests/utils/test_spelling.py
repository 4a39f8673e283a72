"""utils/spelling.py: misspellings are recognized, and other things are not taken for misspellings."""

import pytest

from utils.spelling import nearest

CHOICES = [
    "net_type", "embed_dims", "num_frame", "spike_normalize", "wandb_name", "use_wandb", "dataroot_gt", "dataroot_lq",
    "tfp", "flex", "SpiklingTestDataset", "VideoRecurrentTestDataset", "spike_h",
]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("net_typ", "net_type"),
        ("met_type", "net_type"),
        ("embed_dim", "embed_dims"),
        ("numframe", "num_frame"),
        ("Num_Frame", "num_frame"),
        ("spike_normalise", "spike_normalize"),
        ("dataroot_gtt", "dataroot_gt"),
        ("tpf", "tfp"),
        ("flesh", "flex"),
        ("VideoRecurentTestDataset", "VideoRecurrentTestDataset"),
        ("dcn_type", None),
        ("rgb_normalize", None),
        ("swanlab_name", None),
        ("use_swanlab", None),
        ("TestDataset", None),
        ("spike_w", None),
        ("dataroot_hr", None),
    ],
)
def test_nearest(word: str, meant: str | None) -> None:
    assert nearest(word, CHOICES) == meant
