"""The parts of a mask that matter, and how much of what it covers is missing."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_ISLAND_SHARE = 0.02  # of the largest part


def largest_part(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a mask (X, Y, Z)."""
    labels, n_parts = ndimage.label(mask)
    if n_parts == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def main_parts(mask: np.ndarray) -> np.ndarray:
    """Leave out islands of a mask (X, Y, Z): parts of less than 2 % of the largest, over two voxels from others.

    Hemispheres, a cerebellum or slices that lie apart are no islands.
    """
    if not mask.any() or mask.all():
        return mask
    parts, n_parts = ndimage.label(ndimage.binary_dilation(mask))
    if n_parts == 1:
        return mask
    sizes = np.bincount(parts[mask], minlength=n_parts + 1)
    return mask & (sizes >= _ISLAND_SHARE * sizes.max())[parts]


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Add to a mask (X, Y, Z) what it encloses in slices across any of the three axes."""
    holes = np.zeros_like(mask)
    for axis in range(3):
        # A structure that does not reach across `axis` labels every slice on its own.
        structure = np.moveaxis(
            np.pad(ndimage.generate_binary_structure(2, 1)[None], ((1, 1), (0, 0), (0, 0))), 0, axis
        )
        labels, n_parts = ndimage.label(~mask, structure=structure)
        is_hole = np.ones(n_parts + 1, dtype=bool)
        is_hole[0] = False
        for other in {0, 1, 2} - {axis}:
            for end in (0, -1):
                is_hole[np.take(labels, end, axis=other)] = False
        holes |= is_hole[labels]
    return mask | holes


def has_gaps(mask: np.ndarray) -> bool:
    """Tell whether planes of a mask (X, Y, Z), across any of the three axes, are empty between others that are not."""
    filled = (np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    return any(bool((np.diff(planes) > 1).any()) for planes in filled)


def share_missing(foreground: np.ndarray, missing: np.ndarray) -> float:
    """Return the share of a head, in [0, 1], that is missing; both masks are (X, Y, Z).

    What is missing counts as head if the rest of the foreground encloses it in slices across any of the three axes,
    and in planes that are missing as a whole if there is foreground in a neighbouring plane. 0 if there is no head.
    """
    present = foreground & ~missing
    head = fill_holes(present)
    for axis in range(3):
        planes, all_missing = np.moveaxis(head, axis, 0), np.moveaxis(missing, axis, 0).all(axis=(1, 2))
        kept = np.flatnonzero(~all_missing)
        for plane in np.flatnonzero(all_missing):
            place = int(np.searchsorted(kept, plane))
            if 0 < place < len(kept):
                planes[plane] |= planes[kept[place - 1]] | planes[kept[place]]
    return float((head & missing).sum() / max(int(head.sum()), 1))
