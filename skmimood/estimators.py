"""The one list of estimators, as names, so that it imports none of them.

`skmimood`, `skmimood.baselines`, the saving of models and the common tests take from it. A new method is one file
and one line here; see docs/architecture.md.
"""

from __future__ import annotations

import importlib
from typing import Any

# Name -> module that defines it.
ESTIMATORS = {
    "AnoVAEGAN": "skmimood.detectors.vae_gan",
    "AnomalousTokenDetector": "skmimood.tokens.detector",
    "AsymmetricStudentTeacher": "skmimood.detectors.student_teacher",
    "AutoregressiveRestorer": "skmimood.tokens.autoregressive",
    "DenoisingAutoencoder": "skmimood.detectors.denoising",
    "FAnoGAN": "skmimood.detectors.fanogan",
    "ForeignPatchInterpolation": "skmimood.detectors.foreign_patch",
    "HealthyZScore": "skmimood.detectors.zscore",
    "IntensityThreshold": "skmimood.detectors.intensity",
    "LatentDiffusion": "skmimood.tokens.latent_diffusion",
    "MaskedAutoencoderDetector": "skmimood.detectors.masked_autoencoder",
    "MaskedTokenInpainter": "skmimood.tokens.inpainter",
    "PixelEvidence": "skmimood.tokens.evidence",
    "ReverseDistillation": "skmimood.detectors.reverse_distillation",
    "ScanDetector": "skmimood.scans.scan_detector",
    "SliceStandardizer": "skmimood.preprocessing.standardizer",
    "SyntheticAnomalyRestorer": "skmimood.detectors.synthetic",
    "TokenCritic": "skmimood.tokens.critic",
    "TokenLikelihoodDetector": "skmimood.tokens.likelihood",
    "TokenizerResidual": "skmimood.tokens.tokenizer_residual",
    "VAERestoration": "skmimood.detectors.variational",
    "VQTokenizer": "skmimood.tokens.tokenizer",
}
# Found in `skmimood` itself; all others are rivals, in `skmimood.baselines`.
OURS = (
    "AnomalousTokenDetector", "MaskedTokenInpainter", "PixelEvidence", "ScanDetector", "SliceStandardizer",
    "VQTokenizer",
)  # fmt: skip


def load_estimator(name: str) -> Any:
    """Return the estimator class of a name in ``ESTIMATORS``."""
    return getattr(importlib.import_module(ESTIMATORS[name]), name)
