"""Evidence that does not depend on the codes: a network that looks at the pixels, beside the tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skmimood.maps.residuals import MedianResiduals
from skmimood.preprocessing.heads import head_masks
from skmimood.runtime.device import inference
from skmimood.tokens.base import check_tokenized
from skmimood.tokens.container import TokenizedScans
from skmimood.training.denoising import DenoisingStep
from skmimood.validation.images import check_images


class PixelEvidence(TransformerMixin, MedianResiduals, DenoisingStep):
    """Denoising U-Net over the slices themselves, as a step between tokenizer and in-painter.

    What the token detector does not see is not resampled, so that the residual of the tokens is 0 there; and tokens
    have lost what a code cannot hold. This step learns to remove coarse noise from the slices as the tokenizer's
    network sees them (Kascenas et al. 2022). It adds two things to the slices that pass: its filtered residual as
    ``evidence``, with which a later `MaskedTokenInpainter` multiplies its own (``maps__fusion``), and the ``denoised``
    slices, from which it heals. Not a part of MIM-OOD. Unless stated otherwise, a change of a parameter needs a refit.

    Parameters
    ----------
    noise_std, noise_resolution, channels, depth, augment, flip, training
        See `DenoisingAutoencoder`.
    residual, erosion, median_filter
        How the evidence is made, as the maps of `DenoisingAutoencoder`. No refit needed.
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    image_shape_ : tuple of int
        Height and width seen in fit, after the number of channels where slices have them.
    state_, config_, fitted_with_, history_, n_iter_, seed_
        See `TrainedStep`.

    References
    ----------
    Kascenas, Pugeault & O'Neil, Denoising autoencoders for unsupervised anomaly detection in brain MRI, MIDL 2022.
    """

    _learnt = ("image_shape_",)
    _check_input = staticmethod(check_tokenized)

    def _keep_shape(self, healthy: TokenizedScans) -> None:
        self.image_shape_ = healthy.images.shape[1:]

    def _fit(self, healthy: TokenizedScans, held_out: float) -> None:
        self._fit_denoiser(healthy.tokenizer.seen(healthy.images), held_out)

    def transform(self, X: Any) -> TokenizedScans:
        """Return ``X`` with ``evidence`` (n, H, W) and ``denoised`` slices of the shape of its own, float32."""
        check_is_fitted(self)
        self._check_parameters()
        check_images(check_tokenized(X).images, self.image_shape_)
        seen = torch.from_numpy(X.tokenizer.seen(X.images))
        with inference(self._torch_device):
            restored = self._denoise(seen.to(self._torch_device)).cpu()
        evidence = self._residuals(seen, restored, head_masks(X.images))
        return replace(X, evidence=evidence.numpy(), denoised=restored.numpy())
