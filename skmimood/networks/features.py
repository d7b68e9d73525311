"""Networks whose feature maps others learn from: the encoder of a `UNet`, a ResNet, or a module from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skmimood.networks.unet import UNet
from skmimood.networks.weights import initialise_convolutions

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the photographs of ImageNet
_STAGES = ("layer1.", "layer2.", "layer3.")
_IN_BLOCK = r"layer\d\.\d+\.(conv\d|bn\d|downsample\.[01])\.\w+"
_NORM_EPS = 1e-5


class UNetEncoder(UNet):
    """Images (n, 1, H, W) to the features of the levels of a `UNet` but the first, (n, widths[k], H / 2**k, W / 2**k).

    Sizes are rounded up.
    """

    def __init__(self, *, widths: Sequence[int]) -> None:
        super().__init__(widths=widths)
        del self.up, self.merge, self.to_image

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Return the features, the finest first."""
        height, width = images.shape[-2:]
        x = F.pad(images, (0, -width % self.factor, 0, -height % self.factor))
        features: list[Tensor] = []
        for block in self.down:
            x = block(F.avg_pool2d(x, 2) if features else x)
            features.append(x)
        return features[1:]


class _Residual(nn.Module):
    """A block of a ResNet, its norms folded into the convolutions: 3x3-3x3, or 1x1-3x3-1x1 if ``inner`` is narrower."""

    def __init__(self, n_in: int, inner: int, n_out: int, stride: int) -> None:
        super().__init__()
        if inner == n_out:
            self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1)
            self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        else:
            self.conv1 = nn.Conv2d(n_in, inner, 1)
            self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1)
            self.conv3 = nn.Conv2d(inner, n_out, 1)
        if stride > 1 or n_in != n_out:
            self.downsample = nn.Conv2d(n_in, n_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        x = self.conv2(self.conv1(x).relu())
        x = self.conv3(x.relu()) if hasattr(self, "conv3") else x
        return (x + shortcut).relu()


class ResNetEncoder(nn.Module):
    """Images (n, 1, H, W) to the outputs of the first three stages of a ResNet (He et al. 2016), at 1/4, 1/8 and 1/16.

    Stages have ``lengths`` blocks, ``inner`` channels within these and ``outer`` after them; ``stem`` channels come
    before the first. The last stage of the network, made for classes, is left out.
    """

    def __init__(
        self, *, stem: int, lengths: Sequence[int], inner: Sequence[int], outer: Sequence[int]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3)
        self.stages = nn.ModuleList()
        for stage, n_in in enumerate((stem, *outer[:-1])):
            widths = [n_in] + (lengths[stage] - 1) * [outer[stage]]
            strides = [2 if stage and not block else 1 for block in range(len(widths))]
            blocks = [
                _Residual(width, inner[stage], outer[stage], stride)
                for width, stride in zip(widths, strides, strict=True)
            ]
            self.stages.append(nn.Sequential(*blocks))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights; see `initialise_convolutions`."""
        initialise_convolutions(self, generator)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features, the finest first."""
        x = F.max_pool2d(self.conv1(as_photographs(images)).relu(), 3, stride=2, padding=1)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class ModuleEncoder(nn.Module):
    """Images (n, 1, H, W) to the feature maps that a module returns, in a sequence or mapping or alone, finest first.

    A module whose first convolution takes one channel gets the images as they are, any other `as_photographs`.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        convolutions = (layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
        self.takes_grey = next((layer.in_channels == 1 for layer in convolutions), False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features."""
        found = self.module(images if self.takes_grey else as_photographs(images))
        maps = (
            [found]
            if isinstance(found, Tensor)
            else list(found.values() if isinstance(found, Mapping) else found)
        )
        return sorted(maps, key=lambda one: -one.shape[-2] * one.shape[-1])


def as_photographs(images: Tensor) -> Tensor:
    """Return images (n, 1, H, W) in [0, 1] as three channels, standardised as networks for ImageNet expect them."""
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (images - mean) / std


def encoder_class(sizes: Mapping[str, Any]) -> type[nn.Module]:
    """Return the class that these sizes build."""
    return UNetEncoder if "widths" in sizes else ResNetEncoder


def make_encoder(**sizes: Any) -> nn.Module | None:
    """Build a `UNetEncoder` or a `ResNetEncoder` of these sizes; without any, nothing."""
    return encoder_class(sizes)(**sizes) if sizes else None


def read_resnet(weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the sizes and the weights of the `ResNetEncoder` in those of a ResNet named as by torchvision and timm.

    Raises `KeyError` if they have other names, as those of a network with more in its blocks.
    """
    others = [name for name in weights if name.startswith(_STAGES) and not re.fullmatch(_IN_BLOCK, name)]
    if others:
        raise KeyError(others[0])
    sizes: dict[str, Any] = {"stem": len(weights["conv1.weight"]), "lengths": [], "inner": [], "outer": []}
    folded = _folded(weights, "conv1", "bn1", "conv1")
    for stage, prefix in enumerate(_STAGES):
        old = prefix.rstrip(".")
        blocks = {name.split(".")[1] for name in weights if name.startswith(prefix)}
        last = "conv3" if f"{old}.0.conv3.weight" in weights else "conv2"
        sizes["lengths"].append(len(blocks))
        sizes["inner"].append(len(weights[f"{old}.0.conv1.weight"]))
        sizes["outer"].append(len(weights[f"{old}.0.{last}.weight"]))
        for block in blocks:
            before, after = f"{old}.{block}", f"stages.{stage}.{block}"
            for k in range(1, 1 + int(last[-1])):
                folded |= _folded(weights, f"{before}.conv{k}", f"{before}.bn{k}", f"{after}.conv{k}")
            if f"{before}.downsample.0.weight" in weights:
                shortcut = f"{before}.downsample"
                folded |= _folded(weights, f"{shortcut}.0", f"{shortcut}.1", f"{after}.downsample")
    return sizes, folded


def _folded(weights: Mapping[str, Tensor], convolution: str, norm: str, name: str) -> dict[str, Tensor]:
    """Return the weights of the convolution ``name`` that does what a convolution and its batch norm do."""
    gain, shift, mean, variance = (
        weights[f"{norm}.{part}"].float() for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain * torch.rsqrt(variance + _NORM_EPS)
    kernel = weights[f"{convolution}.weight"].float() * scale.view(-1, 1, 1, 1)
    return {f"{name}.weight": kernel, f"{name}.bias": shift - mean * scale}
