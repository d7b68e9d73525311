"""The baselines that train one network on the slices themselves, without tokens."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from skmimood.maps.base import BasePixelDetector, held_out_slices
from skmimood.runtime.device import inference, with_halving
from skmimood.training.estimator import TrainedStep
from skmimood.validation.images import check_images, healthy_samples

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11


class BaseImageDetector(BasePixelDetector, TrainedStep):
    """Base of detectors with one network over slices (n, H, W) in [0, 1].

    Subclasses implement ``_fit_images`` and ``_detect_batch(images (n, H, W) tensor) -> (maps, healed)``, whose result
    for one slice must not depend on its neighbours.

    Attributes
    ----------
    image_shape_ : tuple of int
        Height and width seen in fit.
    """

    image_shape_: tuple[int, int]

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Learn from healthy slices, and calibrate ``threshold_`` on the held-out ones.

        Parameters
        ----------
        X : array-like of shape (n, H, W)
            Slices in [0, 1].
        y, groups
            Lesions, and whose slice each is; see `VQTokenizer.fit`.

        Returns
        -------
        self
        """
        self._check_parameters()
        healthy, held_out = healthy_samples(check_images(X), y, groups, self._training.validation_fraction)
        self._fit_images(healthy, held_out)
        self.image_shape_ = healthy.shape[1:]
        self._calibrate(held_out_slices(healthy, held_out))
        return self

    @abstractmethod
    def _fit_images(self, healthy: np.ndarray, held_out: float) -> None:
        """Train on healthy slices, of which the share ``held_out`` at the end validates."""

    @abstractmethod
    def _detect_batch(self, images: Tensor) -> tuple[Tensor, Tensor]: ...

    def _detect(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = torch.from_numpy(X)

        def run(size: int) -> list[list[Tensor]]:
            batches = (
                images[start : start + size].to(self._torch_device) for start in range(0, len(images), size)
            )
            return [[part.cpu() for part in self._detect_batch(batch)] for batch in batches]

        with inference(self._torch_device):
            parts = with_halving(run, self._training.batch_size)
        maps, healed = (torch.cat(list(part)).numpy() for part in zip(*parts, strict=True))
        return maps, healed
