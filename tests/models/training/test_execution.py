"""Training steps with compiled blocks and with deterministic algorithms."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.layers.backends.sdpa import SdpaBackend
from models.layers.spike.temporal_attention import TemporalBlock
from models.layers.vrt.blocks import TMSA
from models.layers.vrt.stage import RTMSA
from models.layers.vrt.window_attention import BlockSettings, WindowCodes
from models.layers.vrt.window_layout import WindowLayouts
from models.model_base import Batch, ModelBase
from models.select_network import vrt_with_spike
from models.training import execution
from utils.options.schema import TrainOptions
from utils.utils_dist import Dist, check_same_weights
from utils.utils_registry import keyword_parameters

CPU = Dist(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
SIZE = (2, 8, 8)


class Net(nn.Module):
    """Both kinds of blocks that are compiled, with shifted windows, drop path and recomputing."""

    def __init__(self, recompute: bool) -> None:
        super().__init__()
        codes = WindowCodes((2, 4, 4))
        settings = BlockSettings(8, 2, (0.2, 0.5), checkpoint_attn=recompute, checkpoint_ffn=recompute)
        self.group = RTMSA(settings, codes)
        self.time = TemporalBlock(8, 2, 1, max_batch_tokens=64, recompute=recompute)

    def forward(self, x: Tensor) -> Tensor:
        return self.time(self.group(x, WindowLayouts(x.shape[0], x.device), SdpaBackend()))


class Model(ModelBase):
    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"G_pixel": (self.network(batch["L"]) - batch["H"]).square().mean()}


def trained(steps: int = 2, recompute: bool = False, **train: Any) -> Model:
    """A model after a few steps from the same start on the same data."""
    torch.manual_seed(0)
    model = Model(Net(recompute), TrainOptions(G_scheduler_periods=100, G_optimizer_lr=0.01, **train), CPU)
    generator = torch.Generator().manual_seed(1)
    for number in range(1, steps + 1):
        pair = {name: torch.randn(2, *SIZE, 8, generator=generator) for name in "LH"}
        assert model.optimize_parameters(number, pair)
    return model


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are traced and differentiated as for a compiler, and run as they are: no C++, the same numbers."""
    monkeypatch.setattr(execution, "BACKEND", "aot_eager")


def assert_same_gradients(compiled: Model, plain: Model) -> None:
    """Not the weights: Adam makes steps of full size of rounding errors where a gradient is zero."""
    for one, other in zip(plain.netG.parameters(), compiled.netG.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_a_step_with_compiled_blocks_is_the_same_step(traced_only: None, recompute: bool) -> None:
    torch._dynamo.reset()
    plain, compiled = trained(recompute=recompute), trained(recompute=recompute, compile=True, E_decay=0.5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert compiled.netG.state_dict().keys() == plain.netG.state_dict().keys()
    assert_same_gradients(compiled, plain)
    torch.testing.assert_close(compiled.log["grad_norm"], plain.log["grad_norm"])
    # What tests use is not compiled, and is another network than the one in training.
    assert compiled.netE is not None
    x = torch.randn(1, *SIZE, 8)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.no_grad():
        compiled.netG.eval()
        torch.testing.assert_close(compiled.netG(x), plain.netG.eval()(x), rtol=1e-3, atol=1e-4)
        assert not torch.equal(compiled.netE(x), compiled.netG(x))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_step_is_the_same_step() -> None:
    torch._dynamo.reset()
    plain, compiled = trained(recompute=True), trained(recompute=True, compile=True)
    assert_same_gradients(compiled, plain)


def one_of_two_ranks(rank: int, meeting_point: str) -> None:
    """A step with DDP around compiled blocks, which leaves the same weights on both."""
    execution.BACKEND = "aot_eager"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting_point, rank=rank, world_size=2)
    dist = Dist(rank=rank, world_size=2, local_rank=rank, device=torch.device("cpu"))
    torch.manual_seed(0)
    model = Model(Net(True), TrainOptions(G_scheduler_periods=100, compile=True), dist)
    start = {name: value.clone() for name, value in model.netG.state_dict().items()}
    torch.manual_seed(rank)
    assert model.optimize_parameters(1, {name: torch.randn(2, *SIZE, 8) for name in "LH"})
    assert isinstance(model.network, DistributedDataParallel)
    assert not torch.equal(model.netG.time.mlp[0].weight, start["time.mlp.0.weight"])
    check_same_weights(model.netG, dist)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_compiled_blocks_learn_on_two_ranks(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two_ranks, (f"file://{tmp_path}/meeting",), nprocs=2)


def test_transformer_blocks_are_compiled_and_nothing_else(traced_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    for kind in (nn.Module, TMSA, TemporalBlock):
        monkeypatch.setattr(kind, "compile", lambda self, **settings: compiled.append(self))
    small = {"embed_dims": [8] * 8, "depths": [2] * 8, "num_heads": [2] * 8, "deformable_groups": 2, "upscale": 1}
    small |= {"indep_reconsts": [7], "img_size": [2, 16, 16]}
    defaults = {key: parameter.default for key, parameter in keyword_parameters(vrt_with_spike).items()}
    network = vrt_with_spike(**{**defaults, **small})
    execution.compile_blocks(network)
    assert sum(isinstance(block, TMSA) for block in compiled) == 2 * 8
    assert sum(isinstance(block, TemporalBlock) for block in compiled) == 2 * 4
    assert len(compiled) == len(set(compiled)) == 2 * 8 + 2 * 4


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"train\.compile: .*install g\+\+, or set train\.compile=false"):
        trained(1, compile=True)


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch's choices of algorithms are put back."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "put back by monkeypatch")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    yield
    torch.use_deterministic_algorithms(False)


def test_deterministic_algorithms_are_chosen_when_asked_for(choices: None) -> None:
    trained(1)
    assert not torch.are_deterministic_algorithms_enabled()
    trained(1, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_gpu_is_told_its_limits(choices: None, caplog: pytest.LogCaptureFixture) -> None:
    execution.make_deterministic(torch.device("cuda"))
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert "not bit for bit" in caplog.text
