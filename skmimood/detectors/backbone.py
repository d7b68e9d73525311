"""What the detectors share that learn from the features of a frozen backbone: where it comes from, and their maps."""

from __future__ import annotations

import copy
import math
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from sklearn.base import clone
from torch import Tensor, nn

from skmimood.detectors.image_network import BaseImageDetector
from skmimood.exceptions import InputError, ModelSaveError
from skmimood.maps.residuals import finish_maps, upsample
from skmimood.networks.features import ModuleEncoder, encoder_class, read_resnet
from skmimood.networks.weights import load_network
from skmimood.preprocessing.heads import head_masks
from skmimood.runtime.device import inference
from skmimood.runtime.paths import expand
from skmimood.runtime.streams import shared_seed
from skmimood.training.denoising import DenoisingStep
from skmimood.validation.rules import BOOLEAN, COUNT, COUNT_OR_ZERO, LEVELS, SMOOTHING, Rule

Weights = Mapping[str, np.ndarray] | nn.Module
"""What a backbone is made of: its weights, or a module from elsewhere."""

_BACKBONE: Rule = (
    lambda backbone: backbone is None or isinstance(backbone, str | os.PathLike | nn.Module),
    "None, a torch module or the path of a safetensors file",
)
_OF_ENCODER = "encoder."  # begins the names of the backbone's weights


class DenoisedFeatures(DenoisingStep):
    """The `UNet` of `DenoisingAutoencoder`, whose encoder is the backbone where none is given."""


class BaseFeatureDetector(BaseImageDetector):
    """Base of detectors of slices that learn from the features of a frozen backbone, and heal nothing.

    Subclasses implement ``_fit_on_features``. Their network, which holds the backbone as its ``encoder``, returns
    distances at feature maps, [(n, h, w), ...].

    Parameters
    ----------
    backbone : None, torch module or path, default=None
        The frozen network that features come from. None: the encoder of a denoising `UNet` that is trained before, on
        the healthy slices themselves. A path: a safetensors file with the weights of a ResNet, named as by torchvision
        and timm, of which the first three stages are used; no other file is read. A module, for instance of timm with
        ``features_only=True`` or of torchvision's ``create_feature_extractor``: it returns feature maps (n, C, h, w) in
        a sequence or mapping. Modules and files get grey slices as three channels, standardised as photographs of
        ImageNet, but a module whose first convolution takes one channel gets them as they are. What is learnt from a
        module is not cached and cannot be saved; from a file, the weights that are used are saved with the model.
    backbone_max_iter : int, default=1200
        Training steps of the denoising U-Net; the rest of ``training`` is the same. `DenoisingAutoencoder` with equal
        parameters shares it through ``memory``.
    channels : int, default=16
        Width of the first level of that U-Net; every further level doubles it.
    depth : int from 2 to 10, default=4
        Its levels, each but the first at half the resolution; all but the first are feature maps.
    flip : bool, default=True
        Mirror half of the slices along the last axis in training; turn it off for sagittal slices.
    smoothing : float in [0, 1000], default=1.0
        Standard deviation in pixels of a Gaussian filter of the maps. No refit needed.
    erosion : int >= 0, default=0
        Scores are 0 outside the head or brain and within this many pixels of its surface. No refit needed.
    """

    backbone: Annotated[Any, _BACKBONE] = None
    backbone_max_iter: Annotated[int, COUNT] = 1200
    channels: Annotated[int, COUNT] = 16
    depth: Annotated[int, LEVELS] = 4
    flip: Annotated[bool, BOOLEAN] = True
    smoothing: Annotated[float, SMOOTHING] = 1.0
    erosion: Annotated[int, COUNT_OR_ZERO] = 0

    @abstractmethod
    def _fit_on_features(
        self, feature_widths: list[int], encoder: dict[str, Any], held_out: float, seed: int, **arguments: Any
    ) -> None:
        """Train on feature maps of these channels, the finest first.

        All ends in ``self._fit_network(train, config | encoder, held_out, seed=seed, **arguments)``.
        """

    def _fit(self, healthy: np.ndarray, held_out: float) -> None:
        seed = shared_seed(self.random_state)
        encoder, backbone, before = self._freeze(healthy, held_out, seed)
        widths = _feature_widths(encoder, backbone, healthy.shape[1:])
        self._fit_on_features(
            widths, encoder, held_out, seed, images=healthy, backbone=backbone, flip=self.flip
        )
        self.n_iter_ += len(before.get("loss", ()))
        self.history_ |= {f"backbone_{name}": values for name, values in before.items()}
        self.__dict__.pop("backbone_", None)
        if isinstance(backbone, nn.Module):
            self.state_ = {k: v for k, v in self.state_.items() if not k.startswith(_OF_ENCODER)}
            self.backbone_ = backbone

    def _freeze(
        self, healthy: np.ndarray, held_out: float, seed: int
    ) -> tuple[dict[str, Any], Weights, dict[str, np.ndarray]]:
        """Return the sizes of the backbone, none for a module, its weights, and the history of its training."""
        if isinstance(self.backbone, nn.Module):
            return {}, copy.deepcopy(self.backbone).cpu().eval().requires_grad_(False), {}
        if self.backbone is not None:
            return *_read_backbone(self.backbone), {}
        learner = DenoisedFeatures(
            training=clone(self._training).set_params(max_iter=self.backbone_max_iter), random_state=seed,
            **self._values("channels", "depth", "flip", "device", "memory", "verbose"),
        )  # fmt: skip
        learner._fit_denoiser(healthy, held_out)
        weights = {name: array for name, array in learner.state_.items() if name.startswith("down.")}
        return learner.config_, weights, learner.history_

    def _detect_batch(self, images: Tensor) -> tuple[Tensor, Tensor]:
        network, shape = self._network(), images.shape[1:]

        def distances(batch: Tensor) -> Tensor:
            found = network(batch[:, None])
            return torch.stack(
                [upsample(one, math.ceil(shape[0] / one.shape[1]), shape) for one in found]
            ).sum(0)

        scores, heads = self._in_batches(distances, images), head_masks(images.cpu().numpy())
        maps = finish_maps(scores.cpu().numpy(), heads, self.smoothing, self.erosion)
        return torch.from_numpy(maps), images.clamp(0, 1)

    def _network(self) -> nn.Module:
        network = super()._network()
        if network.encoder is None:
            network.encoder = ModuleEncoder(copy.deepcopy(self.backbone_)).to(self._torch_device)
        return network

    def _inference_parameters(self, X: Any) -> dict[str, Any]:
        return self._values("smoothing", "erosion", "fpr")

    def _parameter_faults(self) -> Iterator[str]:
        yield from super()._parameter_faults()
        if self.depth == 1:
            yield "depth must be at least 2, since the first level is no feature map; got 1"
        if isinstance(self.backbone, nn.Module) and self._training.checkpoint_dir is not None:
            yield "a training on the features of a module cannot be resumed; set training__checkpoint_dir=None"

    def __skmimood_state__(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what was learnt as arrays and JSON values, for `skmimood.save_model`."""
        if hasattr(self, "backbone_"):
            raise ModelSaveError(
                f"{type(self).__name__} has learnt from the features of a {type(self.backbone_).__name__}, whose code "
                "no model can hold. Pickle it, or pass the weights of a ResNet as a safetensors file."
            )
        return super().__skmimood_state__()


def _read_backbone(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the sizes and the weights of the `ResNetEncoder` in a safetensors file."""
    file = expand(path)
    try:
        sizes, weights = read_resnet(load_file(file))
        arrays = {name: tensor.numpy() for name, tensor in weights.items()}
        load_network(encoder_class(sizes), sizes, arrays)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"backbone: {file.name} cannot be read as a safetensors file ({getattr(error, 'strerror', None) or error})."
        ) from error
    except (KeyError, RuntimeError, IndexError) as error:
        raise InputError(
            f"backbone: {file.name} does not hold a ResNet with the names of torchvision and timm. Pass the network "
            "itself as a torch module."
        ) from error
    return sizes, arrays


def _feature_widths(encoder: dict[str, Any], backbone: Weights, image_shape: tuple[int, ...]) -> list[int]:
    """Return the channels of a backbone's feature maps of slices of this shape, the finest first."""
    if isinstance(backbone, nn.Module):
        network: nn.Module = ModuleEncoder(backbone)
    else:
        network = load_network(encoder_class(encoder), encoder, backbone)
    with inference(torch.device("cpu")):
        maps = network(torch.zeros(1, 1, *image_shape, dtype=torch.float32, device="cpu"))
    if not maps or any(one.ndim != 4 for one in maps):
        raise InputError(
            f"backbone returns {[tuple(one.shape) for one in maps]} of one slice; wanted are feature maps of shape "
            "(n, C, h, w). Wrap it so that it returns these alone."
        )
    return [one.shape[1] for one in maps]


def freeze_encoder(network: Any, backbone: Weights) -> None:
    """Give a new network its frozen encoder."""
    if isinstance(backbone, nn.Module):
        network.encoder = ModuleEncoder(backbone)
    else:
        network.encoder.load_state_dict(
            {name: torch.from_numpy(np.array(array)) for name, array in backbone.items()}
        )
    network.encoder.requires_grad_(False)
