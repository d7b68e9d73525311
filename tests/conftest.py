"""Shared fixtures: simple healthy slices and a small pipeline fitted on them once, toy scans and a model of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.pipeline import Pipeline
from toy_scans import save_model_of_toys, write_scans_to_score

from skmimood import AnomalousTokenDetector, MaskedTokenInpainter, VQTokenizer
from skmimood.networks.transformer import TokenTransformer

IMAGE_SIZE = 32
_AS_DARK_AS_A_CENTRE = 0.15  # a lesion of this value has an intensity that healthy slices have elsewhere


def make_slices(n_samples: int, seed: int = 0, size: int = IMAGE_SIZE) -> np.ndarray:
    """Ellipses with a dark centre and a bright rim: simple healthy anatomy, (n, size, size) in [0, 1]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    slices = []
    for _ in range(n_samples):
        radius = (rows / rng.uniform(0.38, 0.44)) ** 2 + (columns / rng.uniform(0.3, 0.36)) ** 2
        image = np.where(radius < 1, 0.45 + 0.25 * radius, 0.0)
        image[radius < 0.08] = 0.15
        slices.append(image * rng.uniform(0.95, 1.05))
    return np.clip(slices, 0, 1).astype(np.float32)


def plant_lesions(slices: np.ndarray, value: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Plant a square lesion into a copy of each slice; return the slices and the masks."""
    masks = np.zeros(slices.shape, bool)
    masks[:, 8:15, 17:23] = True
    return np.where(masks, np.float32(value), slices), masks


def build(estimator_class: type, **parameters):
    """Return an estimator; a nested parameter goes by its last name, ``max_iter`` for ``training__max_iter``."""
    estimator = estimator_class()
    names = {name.rpartition("__")[2]: name for name in estimator.get_params()}
    return estimator.set_params(**{names[name]: value for name, value in parameters.items()})


def small_steps(**common) -> list[tuple]:
    """Return the three steps with networks that train in seconds."""
    common = {"random_state": 0, "warmup_iter": 10, "learning_rate": 2e-3, "precision": "float32", **common}
    transformer = {"depth": 2, "width": 32, "n_heads": 2, "batch_size": 16, **common}
    tokenizer = {"n_codes": 32, "code_dim": 8, "channels": 16, "channel_multipliers": (1, 2), **common}
    return [
        ("tokenizer", build(VQTokenizer, **tokenizer)),
        ("detector", build(AnomalousTokenDetector, threshold=0.2, **transformer)),
        ("inpainter", build(MaskedTokenInpainter, n_steps=2, n_restorations=2, **transformer)),
    ]


def as_if_fitted_with(pipeline: Pipeline, **parameters) -> Pipeline:
    """Set parameters that need a refit, and let the steps take them for those of their fit; change the pipeline."""
    for name, value in parameters.items():
        step, _, own = name.partition("__")
        pipeline.named_steps[step].fitted_with_[own] = value
    return pipeline.set_params(**parameters)


@pytest.fixture
def quick_pipeline() -> Pipeline:
    """Return an unfitted pipeline that makes 3 training steps a network: for contracts, not for quality."""
    return Pipeline(small_steps(max_iter=3))


@pytest.fixture(scope="session")
def healthy() -> np.ndarray:
    return make_slices(64)


@pytest.fixture(scope="session")
def fitted(healthy) -> Pipeline:
    """Return a pipeline trained enough to tell a lesion from its surroundings. Do not change it."""
    pipeline = Pipeline(small_steps(max_iter=250, validation_fraction=0.25))
    return pipeline.set_params(tokenizer__training__max_iter=150, tokenizer__training__batch_size=8).fit(
        healthy
    )


@pytest.fixture(scope="module")
def dark_lesions():
    """Return 12 slices with a lesion as dark as a healthy centre is, and where it is, both (12, H, W)."""
    return plant_lesions(make_slices(12, seed=3), value=_AS_DARK_AS_A_CENTRE)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return where a model of toy scans lies."""
    return save_model_of_toys(tmp_path_factory.mktemp("model"))


@pytest.fixture
def scans(tmp_path):
    """Return a folder with a healthy toy scan and two with a lesion."""
    return write_scans_to_score(tmp_path / "scans")


@pytest.fixture
def batches(monkeypatch):
    """Return a list to which every pass of a token transformer adds how many grids it got."""
    sizes = []
    forward = TokenTransformer.forward

    def counting(self, tokens, *arguments, **options):
        sizes.append(len(tokens))
        return forward(self, tokens, *arguments, **options)

    monkeypatch.setattr(TokenTransformer, "forward", counting)
    return sizes
