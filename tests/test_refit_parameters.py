"""A parameter that needs a refit changes no map of a fitted estimator; those that do not are named here."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import build, make_slices, small_steps

from skmimood import (
    AnomalousTokenDetector,
    PixelEvidence,
    SliceStandardizer,
    VQTokenizer,
    baselines,
    load_model,
    save_model,
)
from skmimood.estimators import ESTIMATORS, load_estimator
from skmimood.tokens.base import TransformerStep
from skmimood.tokens.inpainter import MaskedTokenInpainter

# No refit needed: of the maps, of memory and time, and of where a training runs.
FREE = {
    "threshold", "n_steps", "n_restorations", "temperature", "combination", "sharpness",
    "residual", "residual_weight", "weight_power", "fusion", "min_filter", "mean_filter", "median_filter",
    "erosion", "step_size", "tv_weight", "noise_depths", "compares_codes", "severities",
    "smoothing", "equalize", "bright", "floor", "visible", "n_masks", "n_trials", "key_value_cache",
    "batch_size", "precision", "device", "memory", "verbose", "checkpoint_dir", "resume",
}  # fmt: skip
OTHER = {
    "n_codes": 64, "code_dim": 4, "quantizer": "fsq", "patch_size": 4, "channels": 24, "channel_multipliers": (1, 2, 2),
    "n_res_blocks": 2, "commitment": 0.5, "codebook_decay": 0.9, "restart_below": 2.0, "background_weight": 0.5,
    "n_augmentations": 5,
    "max_iter": 7, "learning_rate": 0.1, "weight_decay": 0.1, "warmup_iter": 3, "gradient_clip": 9.0,
    "validation_fraction": 0.3, "n_iter_no_change": 5, "random_state": 9, "corruption": "painted", "n_painted": 3,
    "mask_generator": {"brush": 1, "maskgit_cosine": 1}, "generator_mask_generator": "maskgit_cosine",
    "network": "unet", "depth": 3, "width": 48, "n_heads": 8, "mlp_ratio": 2.0, "drop_path": 0.2, "n_orderings": 2,
    "noise_std": 0.3, "noise_resolution": 4, "mask_ratio": 0.5, "classifier_max_iter": 9,
    "classifier_learning_rate": 0.1, "decoder_depth": 1, "decoder_width": 32, "decoder_n_heads": 4, "n_templates": 2,
    "fpr": 0.2, "n_neighbors": 3, "latent_dim": 8,
    "levels": 1, "backbone": "weights.safetensors", "backbone_max_iter": 3, "level": 0, "n_couplings": 3,
    "flow_width": 5, "n_blocks": 3, "student_width": 5,
    "latent": "dense", "divergence_weight": 2.0, "adversarial_weight": 2.0, "n_critic": 4, "kappa": 3.0,
    "encoder_max_iter": 9,
}  # fmt: skip
FLAGS = {"standardize", "augment", "flip", "skip_background"}
BRIEF = {"max_iter": 2, "warmup_iter": 0, "random_state": 0}
SMALL = {"depth": 1, "width": 16, "n_heads": 2, **BRIEF}
IMAGES = make_slices(8, seed=1)


def tokenizer(**options):
    return small_steps(max_iter=3)[0][1].set_params(**options).fit(make_slices(24))


@pytest.fixture(scope="module")
def tokens():
    """Return scored tokens of the slices to learn from and of others."""
    first = tokenizer()
    scans = first.transform(make_slices(24))
    detector = build(AnomalousTokenDetector, **SMALL).fit(scans)
    return SimpleNamespace(
        learnt=detector.transform(scans), found=detector.transform(first.transform(IMAGES))
    )


def behind_tokens(estimator_class, **options):
    def fit(tokens):
        common = SMALL if issubclass(estimator_class, TransformerStep) else BRIEF
        fitted = build(estimator_class, **common, **options).fit(tokens.learnt)
        return fitted, lambda: fitted.decision_function(tokens.found)

    return fit


def on_slices(estimator_class, **options):
    def fit(tokens):
        fitted = build(estimator_class, **options).fit(make_slices(24))
        return fitted, lambda: fitted.decision_function(IMAGES)

    return fit


def of_tokenizer(**options):
    def fit(tokens):
        fitted = tokenizer(**options)

        def passed():
            scans = fitted.transform(IMAGES)
            return np.concatenate([scans.tokens.ravel(), fitted.inverse_transform(scans).ravel()])

        return fitted, passed

    return fit


def of_mae(tokens):
    fitted, maps = on_slices(
        baselines.MaskedAutoencoderDetector, **SMALL, decoder_depth=2, decoder_width=16, decoder_n_heads=2,
        classifier_max_iter=2,
    )(tokens)  # fmt: skip
    return fitted, lambda: np.concatenate([maps().ravel(), fitted.score_samples(IMAGES)])


def of_fanogan(tokens):
    fitted, maps = on_slices(
        baselines.FAnoGAN, channels=4, depth=1, latent_dim=4, encoder_max_iter=2, **BRIEF
    )(tokens)  # fmt: skip
    return fitted, lambda: np.concatenate([maps().ravel(), fitted.score_samples(IMAGES)])


def of_evidence(tokens):
    fitted = build(PixelEvidence, channels=4, depth=2, max_iter=2, warmup_iter=0, random_state=0).fit(
        tokens.learnt
    )
    return fitted, lambda: fitted.transform(tokens.found).evidence


def of_standardizer(tokens):
    fitted = SliceStandardizer().fit(IMAGES)
    return fitted, lambda: fitted.transform(IMAGES)


def of_residual(tokens):
    fitted = baselines.TokenizerResidual().fit(tokens.learnt)
    return fitted, lambda: fitted.decision_function(tokens.found)


FITS = {
    "VQTokenizer": of_tokenizer(),
    "VQTokenizer, standardised": of_tokenizer(standardize=True),
    "AnomalousTokenDetector": behind_tokens(AnomalousTokenDetector),
    "AnomalousTokenDetector, head alone": behind_tokens(AnomalousTokenDetector, skip_background=True),
    "MaskedTokenInpainter": behind_tokens(MaskedTokenInpainter),
    "MaskedTokenInpainter, head alone": behind_tokens(MaskedTokenInpainter, skip_background=True),
    "AutoregressiveRestorer": behind_tokens(baselines.AutoregressiveRestorer),
    "TokenCritic": behind_tokens(baselines.TokenCritic),
    "TokenLikelihoodDetector": behind_tokens(baselines.TokenLikelihoodDetector),
    "LatentDiffusion": behind_tokens(baselines.LatentDiffusion, channels=4, levels=2),
    "TokenizerResidual": of_residual,
    "DenoisingAutoencoder": on_slices(
        baselines.DenoisingAutoencoder, channels=4, depth=2, max_iter=2, warmup_iter=0, random_state=0
    ),
    "ForeignPatchInterpolation": on_slices(
        baselines.ForeignPatchInterpolation, channels=4, depth=2, max_iter=2, warmup_iter=0, random_state=0
    ),
    "SyntheticAnomalyRestorer": on_slices(
        baselines.SyntheticAnomalyRestorer, channels=4, depth=2, max_iter=2, warmup_iter=0, random_state=0
    ),
    "VAERestoration": on_slices(
        baselines.VAERestoration, depth=1, latent_dim=4, n_steps=2, max_iter=2, warmup_iter=0, random_state=0
    ),
    "AnoVAEGAN": on_slices(baselines.AnoVAEGAN, channels=4, depth=1, latent_dim=4, **BRIEF),
    "FAnoGAN": of_fanogan,
    "ReverseDistillation": on_slices(
        baselines.ReverseDistillation, channels=4, depth=2, backbone_max_iter=2, **BRIEF
    ),
    "AsymmetricStudentTeacher": on_slices(
        baselines.AsymmetricStudentTeacher,
        channels=4,
        depth=4,
        backbone_max_iter=2,
        flow_width=4,
        student_width=4,
        **BRIEF,
    ),
    "MaskedAutoencoderDetector": of_mae,
    "PixelEvidence": of_evidence,
    "HealthyZScore": on_slices(baselines.HealthyZScore, random_state=0),
    "IntensityThreshold": on_slices(baselines.IntensityThreshold),
    "SliceStandardizer": of_standardizer,
}
FITS |= {  # what needs no options
    name: on_slices(load_estimator(name))
    for name, module in ESTIMATORS.items()
    if module.startswith("skmimood.detectors.") and name not in FITS
}


def others(estimator):
    """Return another value of every parameter that needs a refit."""
    now = estimator.get_params()
    last = {name: name.rpartition("__")[2] for name in now if name not in ("training", "maps")}
    changed = {name: OTHER[own] for name, own in last.items() if own not in FREE | FLAGS}
    return changed | {name: not now[name] for name in now.keys() & FLAGS}


@pytest.mark.filterwarnings("ignore:The codebook has collapsed", "ignore:threshold_ is calibrated")
@pytest.mark.parametrize("name", FITS)
def test_maps_wait_for_the_next_fit(name, tokens, tmp_path):
    estimator, maps = FITS[name](tokens)
    before = maps()
    changed = others(estimator)
    assert all(estimator.get_params()[key] != value for key, value in changed.items())
    estimator.set_params(**changed)
    np.testing.assert_array_equal(maps(), before)
    save_model(estimator, tmp_path / "model")
    estimator.__dict__ = load_model(tmp_path / "model").__dict__
    np.testing.assert_array_equal(maps(), before)


def test_every_estimator_is_tested_here():
    named = {name.partition(",")[0] for name in FITS}
    assert named == set(ESTIMATORS) - {"ScanDetector"}


@pytest.mark.parametrize("standardize", [True, False])
def test_a_model_from_before_parameters_were_kept_takes_them_as_they_are(standardize):
    fitted, passed = of_tokenizer(standardize=standardize)(None)
    arrays, values = fitted.__skmimood_state__()
    assert values.pop("fitted_with_") == {"standardize": standardize}
    opened = VQTokenizer(**fitted.get_params(deep=False))
    opened.__skmimood_restore__(arrays, values)
    expected = passed()
    fitted.__dict__ = opened.__dict__
    np.testing.assert_array_equal(passed(), expected)
