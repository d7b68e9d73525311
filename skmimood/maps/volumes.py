"""From the maps of single slices to the map of a volume, and from that to one number."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_REACH = 3.0  # standard deviations beyond which a slice is too far away to count


def filter_across(
    maps: np.ndarray, distance: float, smoothing: float, present: np.ndarray | None = None
) -> np.ndarray:
    """Average the maps of neighbouring slices, pixel by pixel, with weights that fall off with their distance.

    A lesion reaches through several slices, a false alarm often does not. The weights are a Gaussian of the distance in
    mm, so that what counts is how near slices are and not how many there are; those beyond three standard deviations
    do not count. The weights are divided by their sum over the slices that have a map (normalised convolution, Knutsson
    and Westin, CVPR 1993), so that air, missing slices and the ends of the scan dilute nothing.

    Parameters
    ----------
    maps : ndarray of shape (n, H, W), float32
        Anomaly maps of evenly spaced slices in their order.
    distance : float > 0
        Between neighbouring slices, centre to centre, in mm.
    smoothing : float >= 0
        Standard deviation of the Gaussian in mm; 0 leaves the maps as they are.
    present : ndarray of shape (n,), bool, optional
        Which slices have a map; by default all. The others keep what they hold.

    Returns
    -------
    ndarray of shape (n, H, W), float32
    """
    n_near = min(int(_REACH * smoothing / distance), len(maps) - 1)
    if n_near < 1:
        return maps
    has_map = np.ones(len(maps), np.float32) if present is None else np.asarray(present, np.float32)
    weights = np.exp(-((np.arange(-n_near, n_near + 1) * distance / smoothing) ** 2) / 2)
    total = ndimage.correlate1d(maps * has_map[:, None, None], weights, axis=0, mode="constant")
    weight = ndimage.correlate1d(has_map, weights, mode="constant")
    filtered = maps.copy()
    filtered[has_map > 0] = total[has_map > 0] / weight[has_map > 0, None, None]
    return filtered


def cluster_mass(maps: np.ndarray, threshold: float, voxel_ml: float) -> float:
    """Return how far and how high the map of a volume exceeds a threshold, in units of the map times ml.

    The mass of a cluster is the sum of the excess over its voxels, as in the inference of neuroimaging (Bullmore et
    al., IEEE Transactions on Medical Imaging 18(1), 1999, section II.D). The root of the sum of squared masses lies
    between the largest mass and the sum of all: a voxel counts for more in a large cluster than by itself, as false
    alarms are scattered, and several lesions count for more than one. A cluster that is cut in two by a small change
    of the threshold loses a part of its weight, not half of it or more as the largest mass does. As volumes are in ml,
    neither thinner slices nor air around the head change much.

    Parameters
    ----------
    maps : ndarray of shape (n, H, W), float32
        Anomaly maps of all slices in their order; 0 where nothing is scored.
    threshold : float
        Of the healthy reference. Below 0 it counts as 0, infinity as a mass of 0.
    voxel_ml : float > 0
        Volume of a pixel of a slice in ml.

    Returns
    -------
    float
        0 if nothing exceeds the threshold.
    """
    excess = np.maximum(maps - max(threshold, 0.0), 0)
    clusters, n_clusters = ndimage.label(excess)
    masses = voxel_ml * np.bincount(clusters.ravel(), excess.ravel(), n_clusters + 1)
    return float(np.sqrt((masses**2).sum()))
