"""Intensities in [0, 1] that do not depend on the scanner's unit."""

from __future__ import annotations

import numpy as np

from skmimood.exceptions import InputError


def scale_intensity(
    data: np.ndarray,
    foreground: np.ndarray,
    *,
    percentile: float = 98.0,
    window: tuple[float, float] | None = None,
    strip: bool = False,
) -> np.ndarray:
    """Clip at a percentile of the foreground and scale to [0, 1] (Marimont et al., MIM-OOD, section 4).

    Without negative values this is ``min(x / p, 1)`` with ``p`` the percentile, as in the paper. Where more than
    ``100 - percentile`` percent of the foreground are negative (CT in Hounsfield units, z-scored scans), the
    foreground's ``(100 - percentile)``-th percentile becomes 0, and so does everything outside the foreground. Fewer
    negative values, such as the ringing that interpolation leaves, are clipped to 0. Bone would set the scale of CT:
    pass its `ct_window`.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z)
        Finite intensities in any unit; multiplying them by a positive number changes nothing.
    foreground : ndarray of shape (X, Y, Z), bool
        Where the percentiles are taken.
    percentile : float
        In (50, 100].
    window : (float, float), optional
        The intensities that become 0 and 1, instead of percentiles.
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
    if window is None:
        values = data[foreground]
        window = intensity_range(values, percentile) if values.size else (0.0, 0.0)
    low, high = window
    if not high > low:
        return np.zeros(data.shape, dtype=np.float32)
    scaled = np.clip(data, low, high, dtype=np.float32)
    scaled -= np.float32(low)
    scaled /= np.float32(high - low)
    np.minimum(scaled, 1.0, out=scaled)
    if strip or low < 0:
        scaled[~foreground] = 0.0
    return scaled


def intensity_range(values: np.ndarray, percentile: float = 98.0) -> tuple[float, float]:
    """Return the intensities of a foreground's ``values`` that `scale_intensity` brings to 0 and 1."""
    low, high = (float(bound) for bound in np.percentile(values, [100.0 - percentile, percentile]))
    return min(low, 0.0), high
