"""The methods that are compared: how each is built, and which of its inference parameters are chosen on ``val``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline

from skmimood import (
    AnomalousTokenDetector,
    MaskedTokenInpainter,
    ResidualMaps,
    SliceStandardizer,
    VQTokenizer,
    baselines,
    make_mimood_pipeline,
)
from skmimood.estimators import ESTIMATORS, load_estimator
from skmimood.pipeline import PRESETS

_SIGNS = ["absolute", "positive"]
_EROSIONS = [0, 3, 4]
_LAMBDAS, _POWERS = [0.005, 0.02, 0.1], [0.5, 1.0, 2.0]
# No rival gets fewer candidates than ours: what has no parameter of ours gets finer steps of its own.
_FINE_LAMBDAS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1]
_NATS = [2.5, 3.0, 3.75, 4.5, 5.25, 6.0]
# The untrained methods cost nothing to score, so they get the finest grids.
_INTENSITY: dict[str, list[Any]] = {
    "bright": [True, False],
    "erosion": [0, 2, 3, 4, 5, 7, 10],
    "smoothing": [0.0, 0.7, 1.0, 2.0],
}
_AUTOENCODER: dict[str, list[Any]] = {
    "residual": _SIGNS,
    "erosion": [1, 2, 3, 4, 7],
    "median_filter": [1, 3, 5],
}
_FACTORS: dict[str, list[Any]] = {"erosion": [0, 2, 3, 4, 7], "mean_filter": [1, 3, 5, 7]}
_DISTANCES: dict[str, list[Any]] = {"erosion": [0, 2, 3, 4, 7], "smoothing": [0.0, 1.0, 2.0, 3.0]}
_MASKED_AUTOENCODER: list[dict[str, list[Any]]] = [
    {"residual": _SIGNS, "erosion": [0, 2, 3, 4, 7]},
    {"min_filter": [1, 3], "mean_filter": [1, 3, 7], "median_filter": [1, 5]},
]

_AS_IT_COMES = ", as it comes"

# Presets of the rivals without tokens; "tiny" are their defaults. Those of the others follow PRESETS.
_DENOISING: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"channels": 32, "training__max_iter": 20_000},
    "paper": {"channels": 64, "training__max_iter": 67_200, "training__learning_rate": 1e-4},
}
_INTERPOLATION: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"channels": 32, "training__max_iter": 20_000},
    "paper": {"channels": 64, "training__max_iter": 50_000, "training__batch_size": 32},
}
_RESTORER: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"channels": 32, "depth": 5, "training__max_iter": 20_000, "training__batch_size": 64},
    "paper": {"channels": 32, "depth": 6, "training__max_iter": 100_000, "training__batch_size": 64},
}
_VARIATIONAL: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"channels": 32, "depth": 4, "training__max_iter": 20_000},
    "paper": {
        "channels": 32, "depth": 4, "n_steps": 500, "training__max_iter": 200_000, "training__learning_rate": 1e-4,
    },
}  # fmt: skip
_VAE_GAN: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"channels": 32, "depth": 4, "training__max_iter": 20_000},
    "paper": {"channels": 32, "depth": 4, "training__max_iter": 200_000, "training__learning_rate": 1e-4},
}
_GAN: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"channels": 32, "depth": 4, "n_critic": 5, "training__max_iter": 20_000, "encoder_max_iter": 10_000},
    "paper": {
        "channels": 64, "depth": 4, "n_critic": 5, "training__max_iter": 200_000, "encoder_max_iter": 50_000,
        "training__batch_size": 64, "training__learning_rate": 1e-4,
    },
}  # fmt: skip
_DISTILLATION: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"channels": 32, "backbone_max_iter": 20_000, "training__max_iter": 20_000},
    "paper": {"channels": 64, "backbone_max_iter": 67_200, "smoothing": 2.5, "training__max_iter": 50_000},
}
_STUDENT: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {
        "channels": 32, "backbone_max_iter": 20_000, "student_width": 128, "training__max_iter": 20_000,
    },
    "paper": {
        "channels": 64, "backbone_max_iter": 67_200, "student_width": 1024, "training__max_iter": 50_000,
    },
}  # fmt: skip
_DIFFUSION: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"channels": 128, "training__max_iter": 20_000, "training__batch_size": 64},
    "paper": {
        "channels": 256, "n_steps": 50, "noise_depths": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), "training__max_iter": 200_000,
        "training__batch_size": 64, "training__learning_rate": 1e-4,
    },
}  # fmt: skip
_MAE: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {
        "depth": 8, "width": 256, "n_heads": 8, "decoder_depth": 4, "decoder_width": 128, "classifier_max_iter": 4000,
        "training__max_iter": 20_000, "training__batch_size": 64,
    },
    "paper": {
        "patch_size": 16, "depth": 12, "width": 768, "n_heads": 12, "decoder_depth": 8, "decoder_width": 512,
        "decoder_n_heads": 16, "classifier_max_iter": 12_500, "training__max_iter": 200_000,
        "training__batch_size": 128, "training__warmup_iter": 5000, "training__learning_rate": 7.5e-5,
    },
}  # fmt: skip

# Transformers of the rivals with tokens. The in-painter's training; a detector has another number of steps or slices.
_TRANSFORMER: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {
        "depth": 8, "width": 256, "n_heads": 8, "training__max_iter": 20_000, "training__batch_size": 64,
        "training__learning_rate": 5e-4, "training__warmup_iter": 500,
    },
    "paper": {
        "depth": 12, "width": 512, "n_heads": 8, "training__max_iter": 200_000, "training__batch_size": 64,
        "training__learning_rate": 5e-5, "training__warmup_iter": 2000,
    },
}  # fmt: skip
_ENSEMBLE = {"tiny": {"training__max_iter": 200}}
_DETECTOR_TRAINING = {"tiny": {"training__max_iter": 1200, "training__batch_size": 32}}


@dataclass(frozen=True)
class Settings:
    """What all methods of one run have in common."""

    preset: str  # sizes of the networks and lengths of their training
    seed: int  # `random_state` of every step
    device: str = "auto"
    cache: Path | None = None  # keeps trained networks, and checkpoints of unfinished ones

    def common(self) -> dict[str, Any]:
        """Return the parameters that every trained step has."""
        common: dict[str, Any] = {"random_state": self.seed, "device": self.device}
        if self.cache is not None:
            checkpoints = {"training__checkpoint_dir": f"{self.cache}/checkpoints", "training__resume": True}
            common |= {"memory": f"{self.cache}/networks", **checkpoints}
        return common

    def with_tokens(self, **steps: BaseEstimator) -> Pipeline:
        """Put the tokenizer that all methods share before the steps of one."""
        tokenizer = VQTokenizer().set_params(**PRESETS[self.preset]["tokenizer"], **self.common())
        return Pipeline([("tokenizer", tokenizer), *steps.items()])

    def transformer(self, step: str) -> dict[str, Any]:
        """Return size and training of a rival's transformer, trained as a ``"detector"`` or as an ``"inpainter"``."""
        own = _DETECTOR_TRAINING.get(self.preset, {}) if step == "detector" else {}
        return _TRANSFORMER[self.preset] | own | self.common()


Build = Callable[[Settings], BaseEstimator]
Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Method:
    """One method."""

    title: str  # in tables
    build: Build  # makes an unfitted estimator whose ``decision_function`` turns slices (n, H, W) into maps
    grid: Grid | Sequence[Grid]  # of inference parameters, which are chosen on val


def _standardized(build: Build) -> Build:
    """Put the standardisation of our tokenizer before a detector of slices, so that it is no advantage of ours."""
    return lambda settings: Pipeline([("standardizer", SliceStandardizer()), ("detector", build(settings))])


def _of_detector(grid: Grid) -> Grid:
    return {f"detector__{name}": values for name, values in grid.items()}


def _sized(
    detector_class: type[BaseEstimator], presets: Mapping[str, Mapping[str, Any]], **parameters: Any
) -> Build:
    """Return what builds a detector of slices with the sizes of its own preset, and parameters that differ from it."""

    def build(settings: Settings) -> BaseEstimator:
        return detector_class().set_params(**{**presets[settings.preset], **settings.common(), **parameters})

    return build


def _diffusion(settings: Settings) -> BaseEstimator:
    diffusion = baselines.LatentDiffusion()
    return settings.with_tokens(
        diffusion=diffusion.set_params(**_DIFFUSION[settings.preset], **settings.common())
    )


def _autoregressive(weight: str, *, ensemble: bool = False) -> Build:
    def build(settings: Settings) -> BaseEstimator:
        restorer = baselines.AutoregressiveRestorer(n_orderings=8 if ensemble else 1)
        restorer.set_params(maps__residual_weight=weight, **settings.transformer("inpainter"))
        if ensemble:  # eight networks in about the time of three
            restorer.set_params(**_ENSEMBLE.get(settings.preset, {}))
        return settings.with_tokens(restorer=restorer)

    return build


def _published(detector_class: Any, trained_as: str, **parameters: Any) -> Build:
    """Put the paper's restoration (section 3.4) behind a detector, with R = 4 and T = 8, or 4 for small networks."""

    def build(settings: Settings) -> BaseEstimator:
        inpainter = MaskedTokenInpainter(
            n_steps=8 if settings.preset == "paper" else 4, n_restorations=4, temperature=1.0, mask_generator="brush",
            maps=ResidualMaps(combination="similarity", residual="absolute", residual_weight="none"),
        ).set_params(**settings.transformer("inpainter"))  # fmt: skip
        detector = detector_class(**parameters).set_params(**settings.transformer(trained_as))
        return settings.with_tokens(detector=detector, inpainter=inpainter)

    return build


def _mimood(settings: Settings) -> BaseEstimator:
    pipeline = make_mimood_pipeline(settings.preset)
    for step in pipeline.named_steps.values():
        step.set_params(**settings.common())
    return pipeline


def _maps(last: str) -> list[Mapping[str, Sequence[Any]]]:
    """Return what all methods that restore tokens choose of their maps: sign of the residual and erosion, filters."""
    return [
        {f"{last}__residual": _SIGNS, f"{last}__erosion": _EROSIONS},
        {f"{last}__min_filter": [1, 3], f"{last}__mean_filter": [1, 3, 7]},
    ]


_DENOISER = _sized(baselines.DenoisingAutoencoder, _DENOISING)

# In this order, a network that several methods share is trained by the one whose training time should tell of it.
METHODS: dict[str, Method] = {
    "intensity": Method(
        "Intensity threshold", lambda _: baselines.IntensityThreshold(),
        {"equalize": ["slice", "training"], **_INTENSITY},
    ),
    "intensity-standardized": Method(
        "Intensity threshold, our intensities", _standardized(lambda _: baselines.IntensityThreshold(equalize="none")),
        _of_detector(_INTENSITY),
    ),
    "zscore": Method(
        "Healthy z-score",
        lambda settings: baselines.HealthyZScore(n_templates=12, smoothing=2.0, random_state=settings.seed),
        {"residual": _SIGNS, "erosion": [0, 2, 3, 4, 7], "smoothing": [0.0, 1.0, 2.0]},
    ),
    "dae": Method("Denoising autoencoder", _DENOISER, _AUTOENCODER),
    "dae-standardized": Method(
        "Denoising autoencoder, our intensities", _standardized(_DENOISER), _of_detector(_AUTOENCODER)
    ),
    "mae": Method(
        "Masked autoencoder",
        _sized(baselines.MaskedAutoencoderDetector, _MAE),
        _MASKED_AUTOENCODER,
    ),
    "vae": Method("Variational autoencoder", _sized(baselines.VAERestoration, _VARIATIONAL, n_steps=0), _AUTOENCODER),
    "vae-restoration": Method(
        "VAE restoration", _sized(baselines.VAERestoration, _VARIATIONAL),
        [_AUTOENCODER, {"tv_weight": [0.5, 1.0, 2.0, 4.0, 8.0]}]
    ),
    "anovaegan": Method("AnoVAEGAN", _sized(baselines.AnoVAEGAN, _VAE_GAN), _AUTOENCODER),
    "fanogan": Method("f-AnoGAN", _sized(baselines.FAnoGAN, _GAN), _AUTOENCODER),
    "synthetic-restorer": Method(
        "Restorer of synthetic anomalies", _sized(baselines.SyntheticAnomalyRestorer, _RESTORER),
        [_AUTOENCODER, {"severities": [(1.0,), (0.5, 1.0), (0.25, 0.5, 0.75, 1.0)]}],
    ),
    "foreign-patch": Method(
        "Foreign patch interpolation", _sized(baselines.ForeignPatchInterpolation, _INTERPOLATION), _FACTORS
    ),
    "reverse-distillation": Method(
        "Reverse distillation, own features", _sized(baselines.ReverseDistillation, _DISTILLATION), _DISTANCES
    ),
    "student-teacher": Method(
        "Asymmetric student-teacher, own features", _sized(baselines.AsymmetricStudentTeacher, _STUDENT), _DISTANCES
    ),
    "tokenizer-residual": Method(
        "Tokenizer alone", lambda settings: settings.with_tokens(residual=baselines.TokenizerResidual()),
        [
            {"residual__residual": _SIGNS, "residual__erosion": [0, 2, 3, 4, 7]},
            {"residual__min_filter": [1, 3], "residual__mean_filter": [1, 3, 5, 7]},
        ],
    ),
    "mimood": Method(
        "skmimood", _mimood,
        [{"detector__threshold": _LAMBDAS}, *_maps("inpainter__maps"), {"inpainter__maps__weight_power": _POWERS}],
    ),
    "mimood-default": Method(f"skmimood{_AS_IT_COMES}", _mimood, {}),
    "mimood-paper": Method(
        "MIM-OOD as published",
        _published(AnomalousTokenDetector, "detector", corruption="random", mask_generator="brush"),
        [{"detector__threshold": _FINE_LAMBDAS}, *_maps("inpainter__maps")],
    ),
    "ar": Method(
        "AR restoration", _autoregressive("none"),
        [{"restorer__threshold": _NATS}, *_maps("restorer__maps")],
    ),
    "latent-diffusion": Method(
        "Latent diffusion", _diffusion,
        [
            {"diffusion__noise_depths": [(0.1, 0.2, 0.3), (0.2, 0.35, 0.5), (0.4, 0.5, 0.6), (0.3, 0.6, 0.9)]},
            {"diffusion__compares_codes": [True, False]},
            *_maps("diffusion__maps"),
        ],
    ),
    "mvtm-likelihood": Method(
        "MVTM likelihood", _published(baselines.TokenLikelihoodDetector, "inpainter", mask_generator="brush"),
        [
            {"detector__visible": ["random", "complementary", "unmasked"], "detector__threshold": [3.0, 4.5, 6.0]},
            *_maps("inpainter__maps"),
        ],
    ),
    "token-critic": Method(
        "MVTM + Token-Critic", _published(baselines.TokenCritic, "inpainter", generator_mask_generator="brush"),
        [{"detector__threshold": [0.5, 0.6, 0.7, 0.8, 0.85, 0.9]}, *_maps("inpainter__maps")],
    ),
    "ar-masked": Method(
        "AR restoration, masked residual", _autoregressive("changed"),
        [{"restorer__threshold": _NATS}, *_maps("restorer__maps")],
    ),
    "ar-ensemble": Method(
        "AR restoration, eight orderings, masked residual", _autoregressive("changed", ensemble=True),
        [{"restorer__threshold": _NATS}, *_maps("restorer__maps")],
    ),
}  # fmt: skip

# Every rival that trains a network has a row without the choice on val too, as ours has.
METHODS |= {
    f"{name}-default": Method(f"{method.title}{_AS_IT_COMES}", method.build, {})
    for name, method in METHODS.items()
    if name not in ("intensity", "intensity-standardized", "zscore", "mimood", "mimood-default")
}

_IN_ROWS_ABOVE = {
    "IntensityThreshold", "HealthyZScore", "DenoisingAutoencoder", "MaskedAutoencoderDetector", "VAERestoration",
    "SyntheticAnomalyRestorer", "ForeignPatchInterpolation", "ReverseDistillation", "AsymmetricStudentTeacher",
    "AnoVAEGAN", "FAnoGAN",
}  # fmt: skip


def _as_it_comes(name: str) -> Build:
    def build(settings: Settings) -> BaseEstimator:
        estimator = load_estimator(name)()
        known = estimator.get_params()  # without a network it has no device, say
        return estimator.set_params(
            **{key: value for key, value in settings.common().items() if key in known}
        )

    return build


# Other detectors of slices take part under their own name, with their defaults and nothing to choose.
METHODS |= {
    name: Method(name, _as_it_comes(name), {})
    for name, module in ESTIMATORS.items()
    if module.startswith("skmimood.detectors.") and name not in _IN_ROWS_ABOVE
}


def n_candidates(grid: Grid | Sequence[Grid]) -> int:
    """Return how many candidates are compared on val; 0 if nothing is chosen."""
    stages = [grid] if isinstance(grid, Mapping) else grid
    return sum(len(ParameterGrid(stage)) for stage in stages if stage)


def title(method: str) -> str:
    """Return what tables call a method."""
    return METHODS[method].title if method in METHODS else method
