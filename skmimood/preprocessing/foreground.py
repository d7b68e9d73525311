"""Which voxels of a volume, in any unit, are head or brain, as opposed to the background around them.

Of slices that are already scaled to [0, 1], `skmimood.preprocessing.heads` tells the same by one fixed threshold.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from skmimood.preprocessing.parts import fill_holes, largest_part

_BINS = 512
_MODE_BINS = 50
_PLATEAU_SHARE = 0.02  # of the background: so many equal values are no chance
_FLAT_SHARE = 0.9  # of the background, from which on it is of one value
_WHOLLY_FLAT_SHARE = 0.99
_NOISE_FREE_SHARE = 0.9  # of the dark part that has the background's value
_LEAST_NOISE_FREE_SHARE = 0.5  # the same, where the background is wholly flat: the rest is dark tissue
_SIDE_SHARE = 0.02
_LEAK_SHARE = 0.02  # of the background above the threshold; more noise is smoothed away first
_MAX_SMOOTHINGS = 3
_LARGE_SHARE = 0.05  # of the largest part
_RIM_SHARE = 0.4
_AIR_SPREAD = 0.12  # of the contrast between air and head
_AIR_CONTRAST = 0.02  # of that between padding and the rest
_AIR_REACH = 0.35  # of the head's half thickness: a rind of skull or CSF is thinner than air
_HEAD_RADIUS = 0.35  # of the half thickness of what is not padding
_DARK_AIR = 0.3  # of the way from padding to body; brighter air is accepted in a field of view only
_BOX_SHARE = 0.95  # of its bounding box, which a field of view with straight sides fills


def foreground_mask(data: np.ndarray) -> np.ndarray:
    """Find the head, or the brain if the skull has been stripped.

    The background is the commonest level at the border of the slightly smoothed volume, where faces, edges and corners
    of the frame have equal weights: a head that is cut by several faces does not outvote the air at the corners, and
    clipped or rounded values do not outvote noise. Noise and tissue are separated by half of Otsu's threshold of the
    deviations from that level; where noise would reach it, the volume is smoothed first. If the background is one
    value and the dark part holds hardly any other, or there are values on both sides of it (stripped and z-scored
    scans), all that differs from it is foreground. A background of one value may be padding with air inside. So the
    same is done with what it surrounds, and the result taken if it parts a body from something even, darker, and
    thicker than a rind of skull or CSF.

    The largest part is kept, with large parts that touch it but for a gap of one voxel, and what they enclose in any
    of the three planes. The result depends neither on unit and offset of the intensities nor on the orientation of
    the volume. Where tissue fills so much of the border that air has no majority at its edges and corners, the
    result is arbitrary.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z)
        Finite intensities; the background may be dark, bright, negative, noisy or padded.

    Returns
    -------
    ndarray of shape (X, Y, Z), bool
        Empty for a constant volume.
    """
    data = np.asarray(data, dtype=np.float32)
    n_faces = _faces_met(data.shape)
    mask, padding_contrast = _body(data, None, n_faces, _equal_say(n_faces))
    return _without_air(data, mask, padding_contrast) if padding_contrast else mask


def _faces_met(shape: tuple[int, ...]) -> np.ndarray:
    """Count the faces of the frame that each voxel lies on: 1 on faces, 2 on edges, 3 at corners."""
    n_faces = np.zeros(shape, dtype=np.int8)
    for axis, side in enumerate(shape):
        if side > 1:
            for end in (0, -1):
                n_faces[(slice(None),) * axis + (end,)] += 1
    return n_faces if n_faces.any() else n_faces + np.int8(1)


def _equal_say(n_faces: np.ndarray) -> np.ndarray:
    """Weights of the border voxels with which faces, edges and corners have the same sum."""
    sizes = np.bincount(n_faces[n_faces > 0])
    return (1.0 / np.maximum(sizes, 1))[n_faces[n_faces > 0]]


def _body(
    data: np.ndarray, region: np.ndarray | None, border: np.ndarray, weights: np.ndarray, n_smoothed: int = 0
) -> tuple[np.ndarray, float]:
    """Part the body in a region (None: the whole frame) from its background.

    `border` says how often each voxel counts for the background's value, 0 except at the region's border;
    `weights` (n,) are those of its voxels for the background's level. Return the mask, and the contrast
    between background and the rest if the background is of one value, else 0.
    """
    nothing = np.zeros(data.shape, dtype=bool), 0.0
    inside = slice(None) if region is None else region
    smooth = _smoothed(data, region)
    at_border = border > 0
    mode = _mode(smooth[inside], smooth[at_border], weights)
    counts, edges = _histogram(np.abs(smooth[inside] - mode))
    if not edges[-1] > 0:
        return nothing
    is_background = at_border & (np.abs(smooth - mode) <= 0.5 * edges[_otsu_bin(counts) + 1])
    background = data[is_background]
    signed = data - np.float32(_level(background, border[is_background]))
    if region is not None:
        signed[~region] = 0.0
    deviation = np.abs(signed)
    counts, edges = _histogram(deviation[inside])
    contrast = float(edges[-1])
    if not contrast > 0:
        return nothing
    split = _otsu_bin(counts)
    cut = 0.5 * edges[split + 1]
    noise = deviation[is_background]
    flat_share = (noise < edges[1]).mean()
    if flat_share >= _FLAT_SHARE:
        is_two_sided = min((signed > 0.1 * contrast).mean(), (signed < -0.1 * contrast).mean()) >= _SIDE_SHARE
        least = _NOISE_FREE_SHARE if flat_share < _WHOLLY_FLAT_SHARE else _LEAST_NOISE_FREE_SHARE
        is_free_of_noise = counts[0] >= least * counts[: split + 1].sum()
        if is_two_sided or is_free_of_noise:
            # Tissue of a z-scored scan passes through the background's value: gaps of a voxel do not divide it.
            candidates = deviation > edges[1]
            mask = candidates & largest_part(ndimage.binary_dilation(candidates))
            return fill_holes(mask), contrast
        return _joined_parts(deviation > cut), contrast
    if (noise > cut).mean() > _LEAK_SHARE and n_smoothed < _MAX_SMOOTHINGS:
        return _body(smooth, region, border, weights, n_smoothed + 1)[0], 0.0
    if n_smoothed:  # what is blurred has its surface halfway up
        cut = 0.6 * np.median(deviation[largest_part(deviation > cut)])
    return _joined_parts(deviation > cut), 0.0


def _smoothed(data: np.ndarray, region: np.ndarray | None) -> np.ndarray:
    """Smooth by a Gaussian of one voxel, within the region alone."""
    if region is None:
        return ndimage.gaussian_filter(data, 1.0, mode="nearest")
    share = ndimage.gaussian_filter(region.astype(np.float32), 1.0)
    summed = ndimage.gaussian_filter(np.where(region, data, np.float32(0)), 1.0)
    return np.where(region, summed / np.maximum(share, np.float32(1e-3)), np.float32(0))


def _mode(values: np.ndarray, at_border: np.ndarray, weights: np.ndarray) -> float:
    """Return the commonest level at the border, by a histogram over the range of all values."""
    low, high = np.percentile(values, [0.5, 99.5])
    if not high > low:
        low, high = float(values.min()), float(values.max())
    if not high > low:
        return float(low)
    bins = ((at_border.clip(low, high) - low) / (high - low) * _MODE_BINS).astype(int).clip(0, _MODE_BINS - 1)
    shares = np.convolve(np.bincount(bins, weights, _MODE_BINS), [0.5, 1.0, 0.5], "same")
    return float(np.median(at_border[np.abs(bins - shares.argmax()) <= 1]))


def _level(background: np.ndarray, multiplicity: np.ndarray) -> float:
    """Return the commonest value of the background, or its median if hardly any value comes twice."""
    values, which = np.unique(background, return_inverse=True)
    counts = np.bincount(which.ravel(), multiplicity)
    if counts.max() > _PLATEAU_SHARE * counts.sum():
        return float(values[counts.argmax()])
    return float(np.median(background))


def _histogram(deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return counts and edges of deviations up to their 99.5th percentile."""
    top = float(np.percentile(deviation, 99.5)) or float(deviation.max())
    return np.histogram(deviation, bins=_BINS, range=(0.0, top)) if top > 0 else (np.ones(_BINS), np.zeros(2))


def _otsu_bin(counts: np.ndarray) -> int:
    """Last bin of the darker class in Otsu's split, which maximises the variance between the two classes."""
    positions = np.arange(counts.size)
    below = np.cumsum(counts)[:-1].astype(float)
    above = counts.sum() - below
    moment = np.cumsum(counts * positions)
    gap = moment[:-1] / np.maximum(below, 1) - (moment[-1] - moment[:-1]) / np.maximum(above, 1)
    return int(np.argmax(below * above * gap**2))


def _without_air(data: np.ndarray, mask: np.ndarray, padding_contrast: float) -> np.ndarray:
    """Return the body inside the mask if there is air around it, else the mask."""
    if not mask.any():
        return mask
    sides = ndimage.find_objects(mask.view(np.int8))[0]
    box = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in sides)
    # What a scanner sees has straight sides, or reaches the frame; heads seldom do.
    reaches_frame = any(np.take(mask, end, axis).any() for axis in range(3) for end in (0, -1))
    is_field_of_view = reaches_frame or mask[sides].mean() >= _BOX_SHARE
    body = _body_in_air(data[box], mask[box], padding_contrast, is_field_of_view)
    if body is None:
        return mask
    found = np.zeros_like(mask)
    found[box] = body
    return found


def _body_in_air(
    data: np.ndarray, region: np.ndarray, padding_contrast: float, is_field_of_view: bool
) -> np.ndarray | None:
    """Return the body in a region that is surrounded by padding; None if the region is the body itself."""
    core = ndimage.binary_erosion(region, border_value=1)  # its surface may be half padding
    rim = core & ndimage.binary_dilation(~core)
    if not rim.any():
        return None
    body = _body(data, region, rim.astype(np.int8), np.ones(int(rim.sum())))[0]
    air = core & ~body
    deep = air & ~ndimage.binary_dilation(body, iterations=2)
    if not body.any() or not deep.any() or (rim & air).sum() < _RIM_SHARE * rim.sum():
        return None
    smooth = _smoothed(data, region)
    level = np.median(smooth[deep])
    spread = 1.4826 * np.median(np.abs(smooth[deep] - level))
    contrast = np.median(smooth[body]) - level
    above_padding = level - np.median(data[~region])
    if above_padding > _DARK_AIR * (above_padding + contrast) and not is_field_of_view:
        return None  # a dark rind of the body
    if contrast < _AIR_CONTRAST * padding_contrast or spread > _AIR_SPREAD * contrast:
        return None
    thickness, whole = _half_thickness(body), _half_thickness(region)
    if thickness < _HEAD_RADIUS * whole:
        return None
    reach = ndimage.distance_transform_edt(~body)[air].max()
    return body if reach >= _AIR_REACH * thickness else None


def _half_thickness(mask: np.ndarray) -> float:
    """Radius in voxels of the largest ball in a mask, which is thought to go on beyond the frame."""
    return float(ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge")).max())


def _joined_parts(candidates: np.ndarray) -> np.ndarray:
    """Return the largest part, large ones within a voxel of it, and what they enclose."""
    labels, n_parts = ndimage.label(candidates)
    if n_parts == 0:
        return candidates
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    around = ndimage.binary_dilation(labels == sizes.argmax(), np.ones((3, 3, 3), dtype=bool))
    is_near = np.zeros(n_parts + 1, dtype=bool)
    is_near[labels[around]] = True
    mask = (is_near & (sizes >= _LARGE_SHARE * sizes.max()) & (sizes > 0))[labels]
    return fill_holes(mask)
