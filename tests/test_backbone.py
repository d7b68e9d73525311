"""Where features come from: learnt on the slices, a file of weights, or a module; and what is kept of them."""

import pickle

import numpy as np
import pytest
import torch
from conftest import build, make_slices
from safetensors.torch import save_file
from torch import nn

from skmimood import load_model, save_model
from skmimood.baselines import AsymmetricStudentTeacher, DenoisingAutoencoder, ReverseDistillation
from skmimood.exceptions import InputError, ModelSaveError
from skmimood.networks.features import ModuleEncoder, ResNetEncoder, UNetEncoder, as_photographs, read_resnet

BRIEF = {"max_iter": 2, "backbone_max_iter": 2, "warmup_iter": 0, "random_state": 0, "precision": "float32"}
KINDS = [ReverseDistillation, AsymmetricStudentTeacher]


class Block(nn.Module):
    """A block of a ResNet as torchvision builds it."""

    def __init__(self, n_in, inner, n_out, stride):
        super().__init__()
        sizes = [(n_in, inner, 1), (inner, inner, 3), (inner, n_out, 1)] if inner != n_out else None
        strides = (1, stride, 1) if sizes else (stride, 1)
        for k, (first, last, side) in enumerate(sizes or [(n_in, n_out, 3), (n_out, n_out, 3)], 1):
            convolution = nn.Conv2d(first, last, side, strides[k - 1], padding=side // 2, bias=False)
            self.add_module(f"conv{k}", convolution)
            self.add_module(f"bn{k}", nn.BatchNorm2d(last))
        self.n_layers = len(strides)
        if stride > 1 or n_in != n_out:
            shortcut = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(n_out))

    def forward(self, x):
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        for k in range(1, 1 + self.n_layers):
            x = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(x.relu() if k > 1 else x))
        return (x + shortcut).relu()


class ResNet(nn.Module):
    def __init__(self, stem, lengths, inner, outer):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, stem, 7, 2, padding=3, bias=False), nn.BatchNorm2d(stem)
        for stage, n_in in enumerate((stem, *outer[:-1])):
            widths = [n_in] + (lengths[stage] - 1) * [outer[stage]]
            blocks = [
                Block(width, inner[stage], outer[stage], 2 if stage and not k else 1)
                for k, width in enumerate(widths)
            ]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(outer[-1], 7)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, padding=1)
        return [x := getattr(self, f"layer{stage}")(x) for stage in (1, 2, 3)]


BASIC = {"stem": 4, "lengths": [1, 2, 1], "inner": [4, 6, 8], "outer": [4, 6, 8]}
BOTTLENECK = {"stem": 4, "lengths": [2, 1, 1], "inner": [2, 3, 4], "outer": [8, 12, 16]}


def resnet(sizes) -> ResNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResNet(**sizes)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 2)
                for part in (layer.bias, layer.running_mean):
                    nn.init.normal_(part)
                nn.init.uniform_(layer.running_var, 0.5, 2)
    return network.eval()


@pytest.fixture
def file(tmp_path):
    save_file(resnet(BOTTLENECK).state_dict(), tmp_path / "resnet.safetensors")
    return tmp_path / "resnet.safetensors"


class Pyramid(nn.Module):
    """Two feature maps of slices in one channel, the coarsest first."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(1, 3, 3, 2, padding=1), nn.Conv2d(3, 5, 3, 2, padding=1)
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x):
        fine = self.fine(x)
        return {"coarse": self.norm(self.coarse(fine)), "fine": fine}


@pytest.mark.parametrize("sizes", [BASIC, BOTTLENECK])
def test_a_resnet_in_a_file_has_the_features_of_its_network(sizes):
    network = resnet(sizes)
    found, weights = read_resnet(network.state_dict())
    assert found == sizes
    encoder = ResNetEncoder(**found)
    encoder.load_state_dict(weights)
    images = torch.rand(2, 1, 40, 33)
    with torch.no_grad():
        for one, expected in zip(encoder(images), network(as_photographs(images)), strict=True):
            torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-4)


def test_what_a_module_returns_is_ordered_from_fine_to_coarse():
    module = Pyramid()
    images = torch.rand(2, 1, 16, 16)
    assert [one.shape[1] for one in ModuleEncoder(module)(images)] == [3, 5]
    torch.testing.assert_close(ModuleEncoder(module)(images)[0], module.fine(images))
    photographs = nn.Conv2d(3, 2, 1)
    torch.testing.assert_close(ModuleEncoder(photographs)(images)[0], photographs(as_photographs(images)))


def test_the_encoder_of_a_unet_halves_every_level_and_takes_any_shape():
    features = UNetEncoder(widths=[2, 3, 4])(torch.rand(2, 1, 30, 37))
    assert [one.shape for one in features] == [(2, 3, 16, 20), (2, 4, 8, 10)]


def test_the_backbone_of_the_slices_is_the_encoder_of_the_denoising_autoencoder(tmp_path):
    healthy, memory = make_slices(16), str(tmp_path)
    common = {"channels": 4, "depth": 3, "warmup_iter": 0, "random_state": 0, "memory": memory}
    denoiser = build(DenoisingAutoencoder, max_iter=3, **common).fit(healthy)
    for kind in KINDS:
        fitted = build(kind, max_iter=1, backbone_max_iter=3, **common).fit(healthy)
        own = {k: v for k, v in fitted.state_.items() if k.startswith("encoder.down.")}
        assert len(own) == 24
        for name, array in own.items():
            np.testing.assert_array_equal(array, denoiser.state_[name.removeprefix("encoder.")])
    folders = [path for path in tmp_path.rglob("train_denoiser") if path.is_dir()]
    assert len(folders) == 1  # trained once for all three
    assert len([path for path in folders[0].iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_holds_what_it_needs_of_a_file_and_no_path(kind, file, tmp_path):
    healthy = make_slices(8)
    fitted = build(kind, backbone=str(file), **BRIEF).fit(healthy)
    expected = fitted.decision_function(healthy)
    save_model(fitted, tmp_path / "model")
    file.unlink()
    assert "resnet.safetensors" not in (tmp_path / "model" / "manifest.json").read_text()
    loaded = load_model(tmp_path / "model")
    assert loaded.backbone is None
    np.testing.assert_array_equal(loaded.decision_function(healthy), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_is_copied_frozen_pickled_and_not_saved(kind, tmp_path):
    healthy, module = make_slices(6), Pyramid()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    fitted = build(kind, backbone=module, memory=str(tmp_path / "cache"), **BRIEF).fit(healthy)
    assert module.training
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    expected = fitted.decision_function(healthy)
    nn.init.zeros_(module.fine.weight)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).decision_function(healthy), expected)
    with pytest.raises(ModelSaveError, match="features of a Pyramid"):
        save_model(fitted, tmp_path / "model")
    fitted.set_params(backbone=None).fit(healthy)
    save_model(fitted, tmp_path / "model")


@pytest.mark.parametrize("kind", KINDS)
def test_other_features_make_other_maps(kind, file):
    healthy = make_slices(8)
    maps = [
        build(kind, backbone=one, **BRIEF).fit(healthy).decision_function(healthy) for one in (None, file)
    ]
    assert not np.allclose(*maps, atol=1e-3)


def wrong_files(folder):
    state = resnet(BASIC).state_dict()
    others = {
        "names": {f"module.{name}": tensor for name, tensor in state.items()},
        "shapes": state | {"layer2.0.conv2.weight": torch.zeros(6, 3, 3, 3)},
        "blocks": state | {"layer2.0.se.weight": torch.zeros(1)},
        "stages": {name: tensor for name, tensor in state.items() if not name.startswith("layer3")},
    }
    for name, tensors in others.items():
        save_file(tensors, folder / name)
    torch.save(state, folder / "pickle")
    (folder / "empty").touch()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *((name, "does not hold a ResNet") for name in ("names", "shapes", "blocks", "stages")),
        *((name, "cannot be read as a safetensors file") for name in ("pickle", "empty", "missing")),
    ],
)
def test_a_file_that_is_no_resnet_is_refused(name, fault, tmp_path):
    wrong_files(tmp_path)
    with pytest.raises(InputError, match=f"{name} {fault}"):
        build(ReverseDistillation, backbone=tmp_path / name, **BRIEF).fit(make_slices(8))


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({"backbone": 7}, "backbone must be None, a torch module or the path"),
        ({"depth": 1}, "depth must be at least 2"),
        ({"backbone": Pyramid(), "checkpoint_dir": "here"}, "cannot be resumed"),
        ({"backbone": nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))}, "wanted are feature maps"),
    ],
)
def test_what_is_no_backbone_is_refused(parameters, fault):
    with pytest.raises(InputError, match=fault):
        build(ReverseDistillation, **parameters).fit(make_slices(8))
