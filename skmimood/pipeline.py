"""MIM-OOD as one scikit-learn Pipeline, and its presets."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline

from skmimood.exceptions import InputError
from skmimood.runtime.cache import session_directory
from skmimood.tokens.detector import AnomalousTokenDetector
from skmimood.tokens.evidence import PixelEvidence
from skmimood.tokens.inpainter import MaskedTokenInpainter
from skmimood.tokens.tokenizer import VQTokenizer

_PAPER_OPTIMISER = {
    "training__learning_rate": 5e-5, "training__weight_decay": 1e-5, "training__gradient_clip": 1.0,
    "training__warmup_iter": 2000,
}  # fmt: skip
_PAPER_TRANSFORMER = {
    "depth": 12, "width": 512, "n_heads": 8, "mlp_ratio": 4.0, "drop_path": 0.1, "mask_generator": "brush",
    "training__max_iter": 200_000, "training__batch_size": 64, **_PAPER_OPTIMISER,
}  # fmt: skip
_SMALL_TRAINING = {
    "training__max_iter": 20_000, "training__batch_size": 64, "training__learning_rate": 5e-4,
    "training__warmup_iter": 500,
}  # fmt: skip

_TOY_TRAINING = {
    "training__max_iter": 200, "training__batch_size": 8, "training__learning_rate": 3e-3, "training__warmup_iter": 20,
}  # fmt: skip

# What won on validation tumours, one change at a time; see the ablation in benchmarks/README.md.
_RECIPE_DETECTOR = {
    "threshold": 0.02, "corruption": "painted", "network": "unet", "depth": 3, "width": 64,
    "training__max_iter": 1200,
}  # fmt: skip
_RECIPE_INPAINTER = {
    "n_steps": 1, "n_restorations": 8, "temperature": 0.5, "skip_background": True, "maps__combination": "mean",
    "maps__residual_weight": "anomaly", "maps__weight_power": 2.0, "maps__min_filter": 1, "maps__mean_filter": 1,
    "maps__fusion": "geometric",
}  # fmt: skip

# For `set_params` of each step: what is not named is the default of its class. A step that is not named is left out.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # Half a minute on one CPU core. So few pixels leave no room for the filters of the others.
    "toy": {
        "tokenizer": {
            "standardize": True, "augment": False, "background_weight": 0.05, "patch_size": 4,
            "channel_multipliers": (1,), **_TOY_TRAINING, "training__max_iter": 600,
        },
        "evidence": {"channels": 8, "erosion": 1, "median_filter": 1, **_TOY_TRAINING},
        "detector": {**_RECIPE_DETECTOR, "depth": 2, "width": 32, "n_painted": 4, **_TOY_TRAINING},
        "inpainter": {**_RECIPE_INPAINTER, "network": "unet", "depth": 2, "width": 32, **_TOY_TRAINING},
    },
    # Minutes on two CPU cores.
    "tiny": {
        "tokenizer": {
            "standardize": True, "augment": False, "background_weight": 0.05, "training__max_iter": 1000,
            "training__learning_rate": 2e-3,
        },
        "evidence": {},
        "detector": _RECIPE_DETECTOR,
        "inpainter": {
            **_RECIPE_INPAINTER, "network": "unet", "depth": 3, "width": 64, "training__max_iter": 1200,
            "training__learning_rate": 2e-3,
        },
    },
    "small": {
        "tokenizer": {
            "standardize": True, "channels": 64, "channel_multipliers": (1, 2, 4), "n_res_blocks": 2,
            **_SMALL_TRAINING, "training__batch_size": 32,
        },
        "evidence": {"channels": 32, "training__max_iter": 20_000},
        "detector": {**_RECIPE_DETECTOR, "n_painted": 64, **_SMALL_TRAINING},
        "inpainter": {**_RECIPE_INPAINTER, "depth": 8, "width": 256, "n_heads": 8, **_SMALL_TRAINING},
    },
    "paper": {
        "tokenizer": {
            "n_codes": 256, "code_dim": 256, "patch_size": 1, "channels": 128, "channel_multipliers": (1, 1, 2, 4),
            "n_res_blocks": 2, "standardize": False, "n_augmentations": 7, "training__max_iter": 300_000,
            "training__batch_size": 16, **_PAPER_OPTIMISER,
        },
        "detector": {"threshold": 0.005, "corruption": "random", **_PAPER_TRANSFORMER},
        "inpainter": {
            "n_steps": 8, "n_restorations": 4, "maps__residual_weight": "none",
            "maps__combination": "similarity", "maps__min_filter": 3, "maps__mean_filter": 7, **_PAPER_TRANSFORMER,
        },
    },
}  # fmt: skip

PRESET_IMAGE_SIZE = {"toy": 32, "tiny": 64, "small": 128, "paper": 160}
"""Side in pixels of the square slices that a preset is made for."""

_STEPS: dict[str, Any] = {
    "tokenizer": VQTokenizer, "evidence": PixelEvidence, "detector": AnomalousTokenDetector,
    "inpainter": MaskedTokenInpainter,
}  # fmt: skip

# What tells the networks of one preset from those of another, or from a user's own.
_SHAPE = (
    "tokenizer__patch_size", "tokenizer__channels", "tokenizer__channel_multipliers", "inpainter__network",
    "inpainter__depth", "inpainter__width",
)  # fmt: skip


def make_mimood_pipeline(
    preset: str = "tiny",
    *,
    random_state: Any = 0,
    device: str = "auto",
    memory: Any = "session",
    verbose: bool = False,
) -> Pipeline:
    """Build MIM-OOD: tokenizer, anomalous token detector, masked token in-painter.

    Parameters
    ----------
    preset : {"toy", "tiny", "small", "paper"}, default="tiny"
        ``"tiny"``, for slices of 64 x 64 pixels, trains in minutes on two CPU cores; ``"small"``, for 128 x 128, is
        made for a GPU. Both depart from the paper: slices are standardised (`SliceStandardizer`), a denoising U-Net
        looks at the pixels beside the tokens (`PixelEvidence`), with whose evidence the map is fused, the detector is a
        U-Net over the tokens' codes that learns from anomalies painted into pixels, lambda is 0.02, T = 1, R = 8, the
        temperature of sampling 0.5, the mean residual of the restorations, without filters, is weighted by the
        square of the detector's score, and tokens off the head are not in-painted. In ``"tiny"`` the in-painter is a
        U-Net over the tokens' codes too, since a transformer does not learn in as few steps to look at what is visible;
        and the tokenizer learns without intensity augmentation, and nearly from the head alone, which keeps more of
        the anatomy. ``"toy"``, for 32 x 32, is ``"tiny"`` with networks and trainings cut down to half a minute on one
        CPU core: it shows on artificial brains how things are done, and finds little in real scans.
        ``"paper"`` has every value that Naval Marimont et al. (2023) state: depth 12, stochastic depth 0.1,
        K = 256 codes of D = 256, f = 8 (for 160 x 160 pixels: 400 tokens), lambda = 0.005, T = 8, R = 4, AdamW at
        5e-5 with weight decay 1e-5 and a cosine schedule, 300,000 and 200,000 steps. Where the paper is silent
        it takes: VQGAN's 128 channels with multipliers (1, 1, 2, 4) and 2 residual blocks (the encoder the paper
        cites, cut to f = 8); width 512 with 8 heads and an MLP of 4 (a transformer of depth 12 that fits the
        paper's GPU); batches of 16 and 64; 2,000 steps of warm-up and gradients clipped at 1, which pre-norm
        transformers train stably with; EMA updates of the codebook (decay 0.99, commitment 0.25); restorations
        weighted by similarity, a minimum filter of 3 and a mean filter of 7 pixels. One deviation:
        the flips and rotations that the token models see are 7 fixed copies of each slice, tokenised once, where
        the paper seems to draw them anew at each step.
    random_state : int, RandomState instance or None, default=0
        Seed of all steps. With an integer an equal fit is read from the cache.
    device, verbose
        See `VQTokenizer`.
    memory : str, joblib.Memory or None, default="session"
        Cache of trainings, so that a search over inference parameters never trains again. ``"session"`` is a
        private temporary folder deleted with the process; a path keeps trainings longer; None caches nothing.

    Returns
    -------
    sklearn.pipeline.Pipeline
        With the steps ``tokenizer``, ``evidence`` (not in ``"paper"``), ``detector`` and ``inpainter``; `fit` takes
        healthy slices (n, H, W) in [0, 1], or (n, C, H, W) with up to 8 registered modalities as channels,
        `decision_function` returns pixel maps (n, H, W), `transform` healed slices, `predict` masks.

    References
    ----------
    Naval Marimont, Siomos and Tarroni, MIM-OOD: Generative masked image modelling for out-of-distribution
    detection in medical images, DGM4MICCAI 2023, sections 3 and 4.

    Examples
    --------
    >>> from skmimood import make_mimood_pipeline
    >>> list(make_mimood_pipeline("paper").named_steps)
    ['tokenizer', 'detector', 'inpainter']
    """
    if preset not in PRESETS:
        raise InputError(f"preset must be one of {sorted(PRESETS)}; got {preset!r}.")
    if memory == "session":
        memory = session_directory()
    common = {"random_state": random_state, "device": device, "memory": memory, "verbose": verbose}
    parts = PRESETS[preset].items()
    return Pipeline([(name, _STEPS[name](**common).set_params(**own)) for name, own in parts])


def preset_of(pipeline: Pipeline) -> str | None:
    """Return the preset whose networks a pipeline has by its parameters, None for networks of the user's own."""
    given = pipeline.get_params()
    for preset in PRESETS:
        made = make_mimood_pipeline(preset, memory=None).get_params()
        if all(name in given and given[name] == made[name] for name in _SHAPE):
            return preset
    return None
