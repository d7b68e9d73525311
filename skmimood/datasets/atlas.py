"""The tissue maps that the phantom is made of, and smooth random fields to vary them.

Everything here lives in the *head frame*: millimetres, RAS (x to the patient's right, y to the front, z
upwards), with the origin in the middle of the brain in-plane and at the height of the anterior commissure.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from skmimood.exceptions import SkmimoodError

BRAIN_WIDTH, BRAIN_LENGTH = 145.0, 181.0  # mm along x and y, of the template
_SURFACE_STEP = 2  # mm between the points at which the distances to the brain's surface are kept
_SURFACE_MARGIN = 40  # mm by which that grid is wider than the brain
_FIELD_EXTENT = 280.0  # mm: wider than any frame, so that the mirrored ends of the cosines are never seen
_CLOSING = 14.0  # mm: gaps narrower than twice this lie inside the skull


class MissingTemplateError(SkmimoodError, ImportError):
    """The MNI152 templates are not installed."""


@dataclass(frozen=True)
class Frame:
    """A regular grid in the head frame: coordinates in mm of columns x (W,), rows y (H,) and slices z (D,)."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    @property
    def pixel(self) -> float:
        """Distance in mm between neighbouring columns, and between neighbouring rows."""
        return float(self.x[1] - self.x[0])

    def points(self) -> np.ndarray:
        """Return the coordinates (x, y, z) of all points, shape (3, D, H, W), float32."""
        z, y, x = np.meshgrid(self.z, self.y, self.x, indexing="ij")
        return np.stack([x, y, z]).astype(np.float32)


@dataclass(frozen=True)
class Atlas:
    """Tissue shares of an average brain, ready to be sampled anywhere in the head frame.

    `shares` are 255 times those of white matter, grey matter and cerebrospinal fluid, uint8 (X, Y, Z), on a 1 mm grid
    whose voxel `origin` is the origin of the head frame. `brain_depth` and `head_depth` are signed distances in mm to
    the surface of the brain, and of the brain with its gaps closed, positive inside, on a 2 mm grid.
    """

    shares: tuple[np.ndarray, np.ndarray, np.ndarray]
    brain_depth: np.ndarray
    head_depth: np.ndarray
    origin: tuple[float, float, float]

    def tissues(self, points: np.ndarray) -> np.ndarray:
        """Return the shares of white matter, grey matter and fluid at `points`, both (3, D, H, W)."""
        voxels = points + self._column(points)
        sampled = [
            ndimage.map_coordinates(share, voxels, output=np.float32, order=1) for share in self.shares
        ]
        return np.stack(sampled) / np.float32(255)

    def depth(self, points: np.ndarray, *, head: bool = False) -> np.ndarray:
        """Return the depth in mm below the surface of the brain (or `head`) at `points` (3, D, H, W)."""
        voxels = (points + self._column(points) + _SURFACE_MARGIN) / _SURFACE_STEP
        distances = self.head_depth if head else self.brain_depth
        return ndimage.map_coordinates(distances, voxels, order=1, mode="nearest")

    def _column(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(self.origin, dtype=np.float32).reshape(3, *[1] * (points.ndim - 1))


@functools.cache
def load_atlas(blur: float = 0.0) -> Atlas:
    """Make the atlas from the MNI ICBM152 templates that nilearn carries; once per process, offline.

    Cerebrospinal fluid is what grey and white matter leave of the brain. The average over 152 brains has blurred it,
    so it is amplified, and all three shares are then sharpened towards those of a single brain. `blur` is the standard
    deviation in mm of a Gaussian filter, against aliasing on grids much coarser than the templates.
    """
    if blur > 0:
        sharp = load_atlas()
        white, grey, fluid = (
            ndimage.gaussian_filter(share.astype(np.float32), blur).astype(np.uint8) for share in sharp.shares
        )
        return Atlas((white, grey, fluid), sharp.brain_depth, sharp.head_depth, sharp.origin)
    white, grey, brain, origin = _load_templates()
    fluid = _smoothstep(brain - grey - white, 0.1, 0.55)
    solid = (1 - fluid) / np.maximum(white + grey, 1e-3)
    sharpened = [np.power(np.clip(share, 0, 1), 1.5) for share in (white * solid, grey * solid, fluid)]
    scale = 255 * brain / np.maximum(sum(sharpened), 1e-3)
    white, grey, fluid = (np.rint(share * scale).astype(np.uint8) for share in sharpened)
    inside = np.pad(brain > 0, _SURFACE_MARGIN)[::_SURFACE_STEP, ::_SURFACE_STEP, ::_SURFACE_STEP]
    closed = _signed_depth(_signed_depth(inside) > -_CLOSING) > _CLOSING
    return Atlas((white, grey, fluid), _signed_depth(inside), _signed_depth(closed | inside), origin)


def _load_templates() -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Return white matter, grey matter and brain (X, Y, Z), float32 in [0, 1], and the origin's voxel."""
    try:
        from nilearn import datasets
    except ImportError as error:
        raise MissingTemplateError(
            "The brain phantom is made of the MNI152 templates that nilearn carries, and nilearn is not "
            "installed. Install it with: pip install skmimood[report]"
        ) from error
    mask = datasets.load_mni152_brain_mask(resolution=1)
    brain = np.asarray(mask.dataobj, dtype=np.float32)
    box = ndimage.find_objects((brain > 0).astype(int))[0]
    white, grey = (
        np.asarray(load(resolution=1).dataobj, dtype=np.float32)[box]
        for load in (datasets.load_mni152_wm_template, datasets.load_mni152_gm_template)
    )
    brain = brain[box]
    commissure = -mask.affine[2, 3] - box[2].start
    return white, grey, brain, ((brain.shape[0] - 1) / 2, (brain.shape[1] - 1) / 2, float(commissure))


def _signed_depth(inside: np.ndarray) -> np.ndarray:
    depth = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    return (_SURFACE_STEP * depth).astype(np.float32)


def _smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def smooth_field(
    frame: Frame, rng: np.random.Generator, *, wavelength: float, n_fields: int = 1
) -> np.ndarray:
    """Draw smooth random functions of space and evaluate them on `frame`: (n_fields, D, H, W), float32.

    Each is a sum of products of cosines in x, y and z with normal coefficients, of mean about 0 and standard deviation
    about 1, whose spectrum falls off beyond `wavelength` mm. The values at a point do not depend on the other points
    of the frame: a slice of a volume and the same slice alone have the same field.
    """
    spectrum = _spectrum(wavelength)
    shape = (n_fields, *spectrum.shape)
    coefficients = rng.standard_normal(shape, dtype=np.float32) * spectrum
    waves = np.arange(len(spectrum))
    x, y, z = (
        np.cos(np.pi * np.outer(axis / _FIELD_EXTENT + 0.5, waves)).astype(np.float32)
        for axis in (frame.x, frame.y, frame.z)
    )
    partial = np.tensordot(coefficients, z, axes=(3, 1))  # (n_fields, x waves, y waves, D)
    partial = np.tensordot(partial, y, axes=(2, 1))  # (n_fields, x waves, D, H)
    return np.tensordot(partial, x, axes=(1, 1))  # (n_fields, D, H, W)


@functools.lru_cache(maxsize=64)
def _spectrum(wavelength: float) -> np.ndarray:
    """Return the standard deviation of the coefficient of each product of cosines, shape (n, n, n)."""
    n_waves = 2 + int(2 * _FIELD_EXTENT / wavelength)
    squares = np.arange(n_waves) ** 2
    squared_radius = squares[:, None, None] + squares[:, None] + squares
    spectrum = np.exp(-0.5 * squared_radius * (wavelength / (2 * _FIELD_EXTENT)) ** 2)
    # A product of three cosines has a mean square of 1/8.
    return (spectrum * np.sqrt(8 / np.sum(spectrum**2))).astype(np.float32)
