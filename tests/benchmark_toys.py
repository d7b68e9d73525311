"""A toy data set and a method without networks, for the tests of the benchmarks."""

from dataclasses import replace

import numpy as np
from conftest import make_slices, plant_lesions
from sklearn.base import BaseEstimator

from benchmarks.data.slices import SliceSet, interior, join
from benchmarks.protocol.methods import Method


def toy_patient(name, split, n_lesions, *, n_slices=6, seed=0, value=1.0, dataset="phantom"):
    """Slices of one patient, the first ``n_lesions`` of them with a bright square of 42 pixels."""
    healthy = make_slices(n_slices, seed=seed)
    planted, masks = plant_lesions(healthy, value)
    has_lesion = np.arange(n_slices)[:, None, None] < n_lesions
    head = healthy > 0
    return SliceSet(
        dataset=dataset,
        images=(np.where(has_lesion, planted, healthy) * 255).round().astype(np.uint8).astype(np.float32)
        / 255,
        lesions=masks & has_lesion,
        head=head,
        region=interior(head, spacing=4.0),
        patients=np.full(n_slices, name),
        splits=np.full(n_slices, split),
        kinds=np.where(has_lesion[:, 0, 0], "bright", ""),
        region_name="interior",
        spacing=4.0,
        vanished=np.zeros(n_slices, bool),
        index=np.arange(n_slices),
        distance=np.full(n_slices, 5.0),
    )


def toy_set(n_train=3, n_val=2, n_test=3):
    """Patients of all splits; those to learn from have a lesion in their first slice, the others in three."""
    parts = [toy_patient(f"train-{i}", "train", 1, seed=i) for i in range(n_train)]
    parts += [toy_patient(f"val-{i}", "val", 3, seed=10 + i) for i in range(n_val)]
    parts += [toy_patient(f"test-{i}", "test", 3, seed=20 + i, value=0.8 + 0.1 * i) for i in range(n_test)]
    return join(parts)


def with_lesion_area(slices, rows):
    """Enlarge the lesion of each slice to as many rows as ``rows`` says; 0 removes it."""
    masks = np.zeros_like(slices.lesions)
    for mask, n in zip(masks, rows, strict=True):
        mask[8 : 8 + n, 17:23] = True
    return replace(slices, lesions=masks)


class Brightness(BaseEstimator):
    """The map is the slice, or its negative; counts what it is asked for."""

    calls = {"fit": 0, "score": 0}  # noqa: RUF012

    def __init__(self, *, bright=True, power=1.0, random_state=None):
        self.bright = bright
        self.power = power
        self.random_state = random_state

    def fit(self, X, y=None):
        self.calls["fit"] += 1
        self.seen_ = X
        return self

    def decision_function(self, X):
        self.calls["score"] += 1
        return X**self.power if self.bright else -(X**self.power)


TOY = Method("Brightness", lambda settings: Brightness(random_state=settings.seed), {"bright": [False, True]})
