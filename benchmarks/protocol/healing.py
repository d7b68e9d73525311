"""How well a method heals: against the twins of planted slices, which show what stood there before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.base import BaseEstimator

from benchmarks.data.slices import SliceSet, join
from benchmarks.protocol.ledger import steps_of
from benchmarks.protocol.methods import METHODS
from benchmarks.protocol.scores import Row
from skmimood import SliceStandardizer
from skmimood.baselines import TokenizerResidual
from skmimood.preprocessing.heads import undo_standardise

# An intensity threshold returns the slice itself. The others restore as a method that takes part does: here nothing is
# chosen on val, so a method is as it comes.
_LEFT_OUT = ("intensity", "intensity-standardized", "ar-masked")
HEALERS = {
    name: method
    for name, method in METHODS.items()
    if name not in _LEFT_OUT and not name.endswith("-default")
}
ALL, HEALTHY = "all", "healthy"  # beside the kinds of lesions: all of them, and the twins
_GREY = 0.5 / 255  # half a grey level: a pixel has changed beyond that
_WINDOW, _TRUNCATE, _C1, _C2 = (
    1.5,
    3.5,
    0.01**2,
    0.03**2,
)  # of the SSIM: pixels, windows of 11 x 11, intensities in [0, 1]


@dataclass(frozen=True, eq=False)
class Healed:
    """What a fitted method makes of planted slices and of their twins, (n, H, W), and how it sees the latter."""

    planted: SliceSet
    twins: SliceSet
    of_planted: np.ndarray
    of_twins: np.ndarray
    seen: np.ndarray | None  # (2, n, H, W), of a tokenizer alone: what it decodes, and of what

    @classmethod
    def by(cls, estimator: BaseEstimator, planted: SliceSet, twins: SliceSet) -> Healed:
        """Heal slices with planted lesions, and their twins."""
        seen = _as_seen(estimator, twins.images)
        return cls(planted, twins, heal(estimator, planted.images), heal(estimator, twins.images), seen)

    @classmethod
    def joined(cls, parts: Sequence[Healed]) -> Healed:
        """Put what several fits of one method made of slices behind one another."""
        seen = [one.seen for one in parts if one.seen is not None]
        return cls(
            planted=join([one.planted for one in parts]),
            twins=join([one.twins for one in parts]),
            of_planted=np.concatenate([one.of_planted for one in parts]),
            of_twins=np.concatenate([one.of_twins for one in parts]),
            seen=np.concatenate(seen, axis=1) if seen else None,
        )


def measure(healed: Healed) -> list[Row]:
    """Return the figures of a method: of all lesions, of each kind, and of the healthy twins.

    - ``change_left_median`` and ``change_left_mean``, over lesions (a lesion is of one kind in one patient, on one or
      more slices): sum of abs(healed - twin) over the lesion's mask, as a share of that of abs(scan - twin). 0 is
      perfect; 1 is what the scan itself has.
    - ``psnr`` (dB) and ``ssim``: of the healed slice against the slice, over the pixels of the head off the lesion.
    - ``psnr_seen``, of a tokenizer alone: the same, in the intensities that it sees.
    - ``changed_off_head``: share of the black pixels around the head that are no longer black.
    """
    planted, twins = healed.planted, healed.twins
    kinds, left = change_left(healed.of_planted, planted, twins)
    rows: list[Row] = []
    for kind in (ALL, *np.unique(kinds)):
        chosen, shares = planted.kinds == kind, left[kinds == kind]
        if kind == ALL:
            chosen, shares = np.ones(len(planted), bool), left
        row: Row = {"kind": str(kind), "n_slices": int(chosen.sum()), "n_lesions": len(shares)}
        row |= {"change_left_median": float(np.median(shares)), "change_left_mean": float(shares.mean())}
        rows.append(row | _kept(healed.of_planted[chosen], planted[chosen]))
    healthy: Row = {"kind": HEALTHY, "n_slices": len(twins)} | _kept(healed.of_twins, twins)
    if healed.seen is not None:
        decoded, seen = healed.seen
        healthy["psnr_seen"] = likeness(decoded, seen, twins.head)["psnr"]
    return [*rows, healthy]


def heal(estimator: Any, images: np.ndarray) -> np.ndarray:
    """Return the healed slices (n, H, W) of a fitted method, in the intensities of the slices."""
    healed = np.asarray(estimator.transform(images))
    if isinstance(steps_of(estimator)[0], SliceStandardizer):
        return undo_standardise(healed, images)
    return healed


def change_left(healed: np.ndarray, planted: SliceSet, twins: SliceSet) -> tuple[np.ndarray, np.ndarray]:
    """Return of each lesion its kind, and the share of its change of intensity that healed slices (n, H, W) have."""
    left, changed = (
        (np.abs(images - twins.images) * planted.lesions).sum((1, 2)) for images in (healed, planted.images)
    )
    named = np.stack([planted.patients, planted.kinds])
    (_, kinds), lesion = np.unique(named, axis=1, return_inverse=True)
    lesion = lesion.ravel()
    return kinds, np.bincount(lesion, left) / np.bincount(lesion, changed)


def _kept(healed: np.ndarray, slices: SliceSet) -> Row:
    """Return how like the slices the healed ones are where there is no lesion."""
    background = ~slices.head & (slices.images == 0)
    changed = np.abs(healed - slices.images) > _GREY
    return likeness(healed, slices.images, slices.head & ~slices.lesions) | {
        "changed_off_head": float(changed[background].mean())
    }


def _as_seen(estimator: BaseEstimator, images: np.ndarray) -> np.ndarray | None:
    tokenizer, last = (steps_of(estimator)[end] for end in (0, -1))
    if not isinstance(last, TokenizerResidual):
        return None
    return np.stack([tokenizer.inverse_transform(tokenizer.transform(images).tokens), tokenizer.seen(images)])


def likeness(healed: np.ndarray, images: np.ndarray, where: np.ndarray) -> Row:
    """Return PSNR (dB) and mean SSIM of slices (n, H, W) in [0, 1] over the pixels ``where``; others take no part."""
    healed = np.where(where, healed, images)  # or windows of the SSIM would see what was healed nearby
    with np.errstate(divide="ignore"):
        psnr = -10 * np.log10(np.square(healed[where] - images[where], dtype=np.float64).mean())
    return {"psnr": float(psnr), "ssim": float(ssim(healed, images)[where].mean())}


def ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the map of structural similarity of slices (n, H, W) in [0, 1] (Wang et al. 2004, equation 13)."""
    first, second = (np.asarray(images, np.float64) for images in (first, second))

    def mean(images: np.ndarray) -> np.ndarray:
        return gaussian_filter(images, (0, _WINDOW, _WINDOW), truncate=_TRUNCATE)

    means = mean(first), mean(second)
    variances = mean(first**2) - means[0] ** 2 + mean(second**2) - means[1] ** 2
    covariance = mean(first * second) - means[0] * means[1]
    luminance = (2 * means[0] * means[1] + _C1) / (means[0] ** 2 + means[1] ** 2 + _C1)
    return luminance * (2 * covariance + _C2) / (variances + _C2)
