"""VGG loss: layers, normalisation, chunks, and where its weights come from."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from models.training.perceptual import VGGLoss, at_hand, layer_names


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(torchvision.models.vgg16(weights=None).state_dict(), path)
    return path


@pytest.fixture
def clips() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    restored = torch.rand(1, 3, 3, 32, 32, generator=generator).requires_grad_()
    return restored, torch.rand(1, 3, 3, 32, 32, generator=generator)


def test_layer_names_are_torchvisions():
    names = layer_names("vgg16")
    assert len(names) == len(torchvision.models.vgg16(weights=None).features)
    assert names.index("relu3_3") == 15  # the layer of the documents, by torchvision's index
    assert layer_names("vgg19").index("relu3_4") == 17


def test_equals_features_taken_by_torchvision(weights, clips):
    network = torchvision.models.vgg16(weights=None).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    extractor = create_feature_extractor(network, {"features.15": "relu3_3", "features.2": "conv1_2"})
    normalize = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    a, b = (extractor(normalize(clip[0])) for clip in clips)
    expected = 0.5 * (a["relu3_3"] - b["relu3_3"]).abs().mean() + 2 * (a["conv1_2"] - b["conv1_2"]).abs().mean()
    loss = VGGLoss(vgg_layers=["relu3_3", "conv1_2"], vgg_layer_weights=[0.5, 2.0], vgg_path=weights)
    torch.testing.assert_close(loss(*clips), expected)


def test_chunks_change_neither_loss_nor_gradient(weights, clips):
    restored, sharp = clips
    entire = VGGLoss(vgg_path=weights)(restored, sharp)
    gradient = torch.autograd.grad(entire, restored)[0]
    chunked = VGGLoss(vgg_path=weights, vgg_max_frames=2)(restored, sharp)
    torch.testing.assert_close(chunked, entire)
    torch.testing.assert_close(torch.autograd.grad(chunked, restored)[0], gradient)


def test_is_float32_under_autocast_and_has_no_trained_parameters(weights, clips):
    loss = VGGLoss(vgg_path=weights)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(*clips)
    assert inside.dtype == torch.float32 and torch.equal(inside, loss(*clips))
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_without_weights_it_says_where_to_put_them(monkeypatch):
    def no_network(*_args, **_kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", no_network)
    with pytest.raises(ValueError, match=r"model_zoo/vgg19-dcbb9e9d\.pth, or set train\.vgg_path"):
        VGGLoss(vgg_type="vgg19")


def test_unknown_layer_lists_the_choices():
    with pytest.raises(ValueError, match=r"vgg16 has no relu3_4; it has conv1_1, relu1_1"):
        VGGLoss(vgg_layers=["relu3_4"], vgg_weights="random")


def test_weights_at_hand(weights, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert not at_hand("vgg16", None)
    assert "left out" in caplog.text and "model_zoo/vgg16-397923af.pth or " in caplog.text
    assert at_hand("vgg16", "named.pth")  # a name that is wrong is a fault and not a reason to leave the loss out
    for place in (tmp_path / "model_zoo", tmp_path / "torch" / "hub" / "checkpoints"):
        place.mkdir(parents=True)
        (place / "vgg16-397923af.pth").write_bytes(weights.read_bytes())
        assert at_hand("vgg16", None)
        assert VGGLoss()(torch.zeros(1, 1, 3, 16, 16), torch.ones(1, 1, 3, 16, 16)) > 0
        (place / "vgg16-397923af.pth").unlink()
