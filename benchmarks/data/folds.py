"""Cross-validation over patients: one pool of slices of all of them, and its division into folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from benchmarks.data.slices import MAX_SLICES, SliceSet, cut, join, learn_spacing, prepared
from skmimood.datasets.scan_sets import ScanSet
from skmimood.exceptions import InputError

_SEED = 0  # of the order in which patients are dealt to the folds
# In five folds, seven of ten patients are learned from, and two tested on.
_LEARN, _TEST = 0.7, 0.2


def pool_of(
    dataset: str, scans: ScanSet, size: int, *, is_brain: bool, max_slices: Mapping[str, int] = MAX_SLICES,
    plant: Callable[[SliceSet, float, int], SliceSet] | None = None,
) -> SliceSet:  # fmt: skip
    """Cut all scans into the slices that any fold takes: of every patient those to learn from and those to evaluate.

    They are told apart by their split, ``"train"`` and ``"test"``; a tumour-free slice may be there twice. Arguments
    are those of `slices_of`. The size of a pixel is learnt on all scans, so that every fold has the same slices: of
    the patients of its test a fold knows how large the largest of all heads is, and nothing else.
    """
    spacing, n = learn_spacing(scans, size), len(scans)
    parts = []
    for number, (subject, one) in enumerate(prepared(scans)):
        learned = cut(dataset, subject, "train", one, spacing, size, is_brain)
        evaluated = replace(learned, splits=np.full(len(learned), "test"))
        if plant is None:
            evaluated = evaluated.used(max(1, int(max_slices["test"] / (_TEST * n))))
        else:
            evaluated = plant(evaluated, float(one.scan.spacing.max()), number)
        parts += [learned.used(max(1, int(max_slices["train"] / (_LEARN * n)))), evaluated]
    return join(parts)


def fold_of(pool: SliceSet, fold: int, n_folds: int) -> SliceSet:
    """Return the slices of one fold of a pool, with a split each; patients are never divided.

    The patients, in a random order, are dealt into as many parts as there are folds. Part ``fold`` is tested on, every
    other patient of the next part is chosen on, and all others are learned from.
    """
    patients = np.unique(pool.patients)
    if not 3 <= n_folds <= len(patients) / 2:
        raise InputError(
            f"{pool.dataset}: {len(patients)} patients cannot be dealt into {n_folds} folds. Take at least 3, and at "
            "most one for every two patients."
        )
    dealt = np.random.default_rng(_SEED).permutation(patients)
    test, val = dealt[fold::n_folds], dealt[(fold + 1) % n_folds :: n_folds][::2]
    splits = np.where(
        np.isin(pool.patients, test), "test", np.where(np.isin(pool.patients, val), "val", "train")
    )
    is_taken = (pool.splits == "train") == (splits == "train")
    return replace(pool, splits=splits)[is_taken].check()


class Folds:
    """The folds of a pool of slices, made when asked for."""

    def __init__(self, pool: SliceSet, n_folds: int) -> None:
        self.pool, self.n_folds = pool, n_folds
        self.fingerprint = cache(lambda fold: self[fold].fingerprint())

    def __getitem__(self, fold: int) -> SliceSet:
        return fold_of(self.pool, fold, self.n_folds)
