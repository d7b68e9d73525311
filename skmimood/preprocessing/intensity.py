"""Which voxels are head or brain, and intensities in [0, 1] that do not depend on the scanner's unit."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from skmimood.exceptions import InputError

_BINS = 512
_NOISE_FREE_SHARE = 0.9
_SIDE_SHARE = 0.02


def foreground_mask(data: np.ndarray) -> np.ndarray:
    """Find the head, or the brain if the skull has been stripped.

    The background's value is the commonest one on the faces of the volume. In stripped scans all that differs
    from it is foreground, above or below; they are known by values on both sides of the background's, or by a
    dark part of hardly any other value. Otherwise noise is told from tissue by half of Otsu's threshold. The
    largest connected part is kept, and what it encloses in any of the three planes belongs to it. The result
    depends neither on the unit of the intensities nor on the orientation of the volume. CT whose frame
    is padded below the value of air should be clipped at that of air first, or else air counts as foreground.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z)
        Finite intensities.

    Returns
    -------
    ndarray of shape (X, Y, Z), bool
        Empty for a constant volume.
    """
    signed = data - np.float32(_background_level(data))
    deviation = np.abs(signed)
    top = float(np.percentile(deviation, 99.5)) or float(deviation.max())
    if not top > 0:
        return np.zeros(data.shape, dtype=bool)
    counts, edges = np.histogram(deviation, bins=_BINS, range=(0.0, top))
    split = _otsu_bin(counts)
    is_two_sided = min((signed > 0.1 * top).mean(), (signed < -0.1 * top).mean()) >= _SIDE_SHARE
    if is_two_sided or counts[0] >= _NOISE_FREE_SHARE * counts[: split + 1].sum():
        # Tissue of a z-scored scan passes through the background's value: gaps of a voxel do not divide it.
        candidates = deviation > edges[1]
        mask = candidates & _largest_part(ndimage.binary_dilation(candidates))
    else:
        mask = _largest_part(deviation > 0.5 * edges[split + 1])
    return mask | _holes(mask)


def _background_level(data: np.ndarray) -> float:
    faces = [
        np.take(data, end, axis=axis).ravel() for axis in range(3) for end in (0, -1) if data.shape[axis] > 1
    ]
    values, counts = np.unique(np.concatenate(faces or [data.ravel()]), return_counts=True)
    return float(values[counts.argmax()])


def _otsu_bin(counts: np.ndarray) -> int:
    """Last bin of the darker class in Otsu's split, which maximises the variance between the two classes."""
    positions = np.arange(counts.size)
    below = np.cumsum(counts)[:-1].astype(float)
    above = counts.sum() - below
    moment = np.cumsum(counts * positions)
    gap = moment[:-1] / np.maximum(below, 1) - (moment[-1] - moment[:-1]) / np.maximum(above, 1)
    return int(np.argmax(below * above * gap**2))


def _largest_part(mask: np.ndarray) -> np.ndarray:
    labels, n_parts = ndimage.label(mask)
    if n_parts == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def _holes(mask: np.ndarray) -> np.ndarray:
    """Background that the mask encloses in slices across any of the three axes."""
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
    return holes


def scale_intensity(
    data: np.ndarray, foreground: np.ndarray, *, percentile: float = 98.0, strip: bool = False
) -> np.ndarray:
    """Clip at a percentile of the foreground and scale to [0, 1] (Marimont et al., MIM-OOD, section 4).

    Without negative values this is ``min(x / p, 1)`` with ``p`` the percentile, as in the paper. Where more
    than ``100 - percentile`` percent of the foreground are negative (CT in Hounsfield units, z-scored scans),
    0 does not mean "dark": then the foreground's ``(100 - percentile)``-th percentile becomes 0, and so does
    everything outside the foreground. Fewer negative values, such as the ringing that interpolation leaves,
    are clipped to 0. CT is best brought to its tissue window beforehand, as bone would set the scale.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z)
        Finite intensities in any unit; multiplying them by a positive number changes nothing.
    foreground : ndarray of shape (X, Y, Z), bool
        Where the percentiles are taken.
    percentile : float
        In (50, 100].
    strip : bool
        Whether to set everything outside the foreground to 0.

    Returns
    -------
    ndarray of shape (X, Y, Z), float32
        In [0, 1]; all 0 if the foreground is empty or has no contrast.

    Raises
    ------
    InputError
        If the percentile is out of range.
    """
    if not 50 < percentile <= 100:
        raise InputError(
            f"percentile must be above 50 and at most 100; got {percentile!r}. The paper uses 98."
        )
    values = data[foreground]
    if values.size == 0:
        return np.zeros(data.shape, dtype=np.float32)
    low, high = intensity_range(values, percentile)
    strip = strip or low < 0
    if not high > low:
        return np.zeros(data.shape, dtype=np.float32)
    scaled = np.clip(data, low, high, dtype=np.float32)
    scaled -= np.float32(low)
    scaled /= np.float32(high - low)
    np.minimum(scaled, 1.0, out=scaled)
    if strip:
        scaled[~foreground] = 0.0
    return scaled


def intensity_range(values: np.ndarray, percentile: float = 98.0) -> tuple[float, float]:
    """Return the intensities of a foreground's ``values`` that `scale_intensity` brings to 0 and 1."""
    low, high = (float(bound) for bound in np.percentile(values, [100.0 - percentile, percentile]))
    return min(low, 0.0), high
