"""Toy scans, and a restorer that needs no training, for the tests of ScanDetector."""

import warnings

import nibabel as nib
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from skmimood.baselines import HealthyZScore
from skmimood.exceptions import SkmimoodWarning
from skmimood.jobs.fitting import FitJob
from skmimood.nifti import write_image
from skmimood.scans import ScanDetector

RAS = np.diag([2.0, 2.0, 2.0, 1.0])


class MedianRestorer(BaseEstimator):
    """Restores every slice to the median of the training slices."""

    def fit(self, X, y=None):
        self.seen_ = X.copy()
        self.median_ = np.median(X, axis=0)
        return self

    def map_and_restore(self, X):
        assert X.dtype == np.float32
        assert X.ndim == 3
        assert len(X) <= 16
        restored = np.broadcast_to(self.median_, X.shape).astype(np.float32)
        return np.abs(X - restored), restored

    def __sklearn_is_fitted__(self):
        return hasattr(self, "median_")

    def __skmimood_state__(self):
        return {"median_": self.median_}, {}

    def __skmimood_restore__(self, arrays, values):
        self.median_ = arrays["median_"]


class MedianOfChannels(MedianRestorer):
    """The same of slices (n, C, H, W)."""

    def map_and_restore(self, X):
        restored = np.broadcast_to(self.median_, X.shape).astype(np.float32)
        return np.abs(X - restored).mean(axis=1), restored


class Unchanged(BaseEstimator):
    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return X


def head(seed=0, shape=(30, 36, 20), lesion=False, scale=1000.0, radius=0.42):
    """A noisy upright column of two tissues on a dark ground; the lesion is a brighter cube."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-0.5, 0.5, side) for side in shape), indexing="ij")
    distance = np.hypot(x, y) / radius + (abs(z) > 0.46)
    data = np.where(distance < 1, np.where(distance < 0.6, 0.5, 0.8), 0.0)
    data = np.where(distance < 1, data + rng.normal(0, 0.02, shape), 0.0)
    mask = np.zeros(shape, dtype=np.uint8)
    mask[tuple(slice(side // 2 - 2, side // 2 + 2) for side in shape)] = 1
    if lesion:
        data[mask > 0] = 1.0
    return (data * scale).astype(np.float32), mask


def image(seed=0, affine=RAS, **options):
    return nib.Nifti1Image(head(seed, **options)[0], affine)


def second(seed=0, lesion=False, affine=RAS, **options):
    """Return another contrast of `image`, darker outside than inside."""
    data, mask = head(seed, **options)
    inverted = np.where(data > 0, 1500 - data, 0)
    if lesion:
        inverted[mask > 0] = 50
    return nib.Nifti1Image(inverted.astype(np.float32), affine)


def pair(seed=0, lesion=False):
    """Return two modalities of one head; a lesion shows in the second alone."""
    return image(seed), second(seed, lesion)


def make(**options):
    options = {"size": 24, "fpr": 0.01, "scan_fpr": 0.5} | options
    pipeline = options.pop("pipeline", None) or Pipeline([("restorer", MedianRestorer())])
    return ScanDetector(pipeline, **options)


def write_healthy_scans(folder):
    for seed in range(6):
        write_image(image(seed), folder / f"sub-{seed}_T1.nii.gz")
    return folder


def write_scans_to_score(folder):
    """Write a healthy scan and two with a lesion into a new folder, and return it."""
    folder.mkdir()
    write_image(image(20), folder / "healthy_T1.nii.gz")
    write_image(image(21, lesion=True), folder / "patient-1_T1.nii.gz")
    write_image(image(22, lesion=True), folder / "patient-2_T1.nii.gz")
    return folder


def save_model_of_toys(folder):
    """Fit a healthy z-score on six scans in a folder, and return the path of its model there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)
        steps = Pipeline([("restorer", HealthyZScore())])
        make(pipeline=steps, calibration_fraction=0.3).fit(write_healthy_scans(folder)).save(folder / "model")
    return folder / "model"


def brief_job(**options):
    """Return a job that trains networks of a few weights for some steps."""
    few = {
        "tokenizer": {"n_codes": 16, "code_dim": 4, "channels": 8},
        "evidence": {"channels": 4, "depth": 1},
        "detector": {"width": 8, "depth": 1, "n_painted": 1},
        "inpainter": {"width": 16, "depth": 1, "n_heads": 2},
    }
    recipe = {"max_iter": 4, "batch_size": 4, "warmup_iter": 2, "precision": "float32"}
    parameters = {f"{step}__{name}": value for step in few for name, value in few[step].items()}
    parameters |= {f"{step}__training__{name}": value for step in few for name, value in recipe.items()}
    return FitJob(parameters=parameters, size=16, scan_fpr=0.5, device="cpu", **options)
