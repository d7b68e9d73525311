"""The baselines that train one network on the slices themselves, without tokens."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from skmimood.maps.base import BasePixelDetector
from skmimood.runtime.device import inference
from skmimood.training.estimator import TrainedStep


class BaseImageDetector(BasePixelDetector, TrainedStep):
    """Base of detectors with one network over slices (n, H, W) in [0, 1].

    Subclasses implement ``_fit`` and ``_detect_batch(images (n, H, W) tensor) -> (maps, restored)``, whose result
    for one slice must not depend on its neighbours.
    """

    def _keep_shape(self, healthy: np.ndarray) -> None:
        self.image_shape_ = healthy.shape[1:]

    @abstractmethod
    def _detect_batch(self, images: Tensor) -> tuple[Tensor, Tensor]: ...

    def _detect(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batches = torch.from_numpy(X).split(self._training.batch_size)
        with inference(self._torch_device):
            parts = [
                [part.cpu() for part in self._detect_batch(batch.to(self._torch_device))] for batch in batches
            ]
        maps, restored = (torch.cat(list(part)).numpy() for part in zip(*parts, strict=True))
        return maps, restored
