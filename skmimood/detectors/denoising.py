"""Healing by denoising: an autoencoder that removes coarse noise from healthy slices (Kascenas et al. 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from skmimood.detectors.image_network import BaseImageDetector
from skmimood.maps.residuals import MedianResiduals
from skmimood.preprocessing.heads import head_masks
from skmimood.training.denoising import DenoisingStep
from skmimood.validation.images import check_images


class DenoisingAutoencoder(MedianResiduals, BaseImageDetector, DenoisingStep):
    """U-Net that removes coarse noise from healthy slices, and takes a lesion for such noise (Kascenas et al. 2022).

    In training, Gaussian noise of low resolution is added to the foreground, and the network learns to return the
    slice. A slice to be scored gets no noise; the residual inside the eroded head or brain, filtered by a median, is
    the anomaly map. Slices (n, C, H, W) have several MR sequences as channels (paper: four), each with noise of its
    own. Unless stated otherwise, a change of a parameter needs a refit.

    Parameters
    ----------
    noise_std : float > 0, default=0.2
        Standard deviation of the noise (paper: 0.2).
    noise_resolution : int, default=16
        Cells of the noise a side, which are interpolated to pixels (paper: 16 for 128 pixels).
    residual : {"absolute", "positive"}, default="absolute"
        See `ResidualMaps` (paper: absolute). No refit needed.
    erosion : int >= 0, default=2
        Scores are 0 outside the head or brain, and within this many pixels of its surface (paper: outside those pixels
        whose 5 x 5 neighbourhood is foreground by more than 95 %); take more for a scalp. No refit needed.
    median_filter : int, default=5
        Side in pixels, odd, of the median filter of the maps; 1 for none (paper: 5). No refit needed.
    fpr : float in (0, 1), default=0.01
        See `BasePixelDetector`.
    channels : int, default=16
        Width of the first level (paper: 64); every further level doubles it.
    depth : int from 1 to 10, default=4
        Levels of the U-Net, each but the first at half the resolution (paper: 4).
    augment : bool, default=False
        Broad intensity augmentation in training, before the noise is added (paper: none); see `VQTokenizer`.
    flip : bool, default=True
        Mirror half of the slices along the last axis in training (paper: no); turn it off for sagittal slices.
    training : Training, default=Training(max_iter=1200)
        See `Training` (paper: 67,200 steps of 16 slices at 1e-4, Adam with AMSGrad, decay 1e-5, no warm-up).
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    image_shape_, threshold_, calibrated_with_, state_, config_, history_, n_iter_, seed_
        See `BasePixelDetector` and `TrainedStep`.

    References
    ----------
    Kascenas, Pugeault & O'Neil, Denoising autoencoders for unsupervised anomaly detection in brain MRI, MIDL 2022, with
    the authors' code. Baur et al., Autoencoders for unsupervised anomaly segmentation in brain MR images, 2021
    (positive residual).
    """

    _check_input = staticmethod(check_images)

    def _fit(self, healthy: np.ndarray, held_out: float) -> None:
        self._fit_denoiser(healthy, held_out)

    def _detect_batch(self, images: Tensor) -> tuple[Tensor, Tensor]:
        restored = self._denoise(images)
        return self._residuals(images, restored, head_masks(images.cpu().numpy())), restored

    def _inference_parameters(self, X: Any) -> dict[str, Any]:
        return self._values("residual", "erosion", "median_filter", "fpr")
