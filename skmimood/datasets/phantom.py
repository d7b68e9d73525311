"""Synthetic brain scans with exact lesion masks, made offline from an average brain."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from skmimood.datasets.atlas import BRAIN_LENGTH, BRAIN_WIDTH, Frame, load_atlas, smooth_field
from skmimood.datasets.lesions import LESION_KINDS, displace, paint_lesion, plan_lesions
from skmimood.exceptions import InputError
from skmimood.runtime.streams import draw_seed

MODALITIES = {
    "t2": {"white": 0.35, "grey": 0.55, "csf": 0.95, "scalp": 0.60},
    "t1": {"white": 0.70, "grey": 0.48, "csf": 0.15, "scalp": 0.85},
    "flair": {"white": 0.45, "grey": 0.60, "csf": 0.14, "scalp": 0.70},
}
MIN_SIZE = 32
_SLICE_LEVELS = (-18.0, 52.0)  # mm above the commissures, for single slices: most of the frame is brain
_VOLUME_LEVELS = (-50.0, 74.0)  # mm, for volumes: nearly the whole brain
_SKULL = 14.0  # mm from the brain's surface to the skin
_MARGIN = 1.15  # the field of view over the size of the average head
_VENTRICLE = (-13.0, -5.0, 18.0)  # mm: centre of the left lateral ventricle, wider than the right one
_VENTRICLE_EXTENT = (12.0, 28.0, 16.0)  # mm
_MARK = (-31.0, -24.0)  # mm: x and y of a perivascular space through all slices of the left hemisphere
_MARK_RADIUS = 3.2  # mm


def make_brain_phantom(
    n_samples: int,
    *,
    size: int | tuple[int, int] = 128,
    modality: str = "t2",
    lesions: bool | str | Sequence[str] = False,
    n_slices: int | None = None,
    skull: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Make brain-like slices or volumes, healthy or with lesions whose masks are exact.

    Every sample is the average brain of the MNI152 templates under its own smooth deformation, rotation,
    scaling, tissue contrast, bias field and noise. The left lateral ventricle is wider than the right one,
    the right frontal and the left occipital lobe protrude, and the left hemisphere has a widened
    perivascular space, so that an image flipped from left to right is not a healthy one.

    Parameters
    ----------
    n_samples : int
        Number of slices, or of volumes. Sample i is the same for every `n_samples`.
    size : int or (int, int), default=128
        Height and width in pixels, at least 32. The head fills the frame at every size; pixels are square.
    modality : {"t2", "t1", "flair"}, default="t2"
        Which contrast the tissues have.
    lesions : bool, str or sequence of str, default=False
        Kinds of lesions to plant, in turn over the samples; `True` is all of them, `False` none.

        - ``"bright"`` and ``"dark"``: brighter or darker than grey and white matter
        - ``"texture"``: a coarse texture of the intensities of the tissue that it replaces
        - ``"ring"``: a core of fluid, a solid rim, and oedema in the white matter around it, all in the mask
        - ``"mass"``: a solid mass of an intensity between grey and white matter that displaces its
          surroundings; the mask is the mass itself, without what it displaced
    n_slices : int, optional
        Make volumes with this number of axial slices, from the cerebellum to the vertex, with
        three-dimensional anatomy and lesions. By default single slices at random levels are made.
    skull : bool, default=False
        Whether to surround the brain with skull and scalp. Without them the background is exactly 0.
    random_state : int, RandomState or None, default=None
        Seed. The same seed gives the same bytes, and with another value of `lesions` the same anatomy and
        noise: the healthy twin of every sample with lesions.

    Returns
    -------
    images : ndarray of shape (n_samples, height, width) or (n_samples, n_slices, height, width), float32
        Intensities in [0, 1]. Rows run from front to back, columns from the patient's left to right, and
        slices upwards.
    masks : ndarray of the same shape, bool
        Where the lesions are. Every sample has at least one pixel of lesion unless `lesions` is False.

    Raises
    ------
    InputError
        If an argument is out of its range.
    MissingTemplateError
        If nilearn, which carries the templates, is not installed.
    """
    n_samples = check_count("n_samples", n_samples)
    kinds = check_kinds(lesions)
    n_slices = None if n_slices is None else check_count("n_slices", n_slices)
    recipe = Recipe(check_size(size), check_modality(modality), n_slices, bool(skull))
    images = np.empty((n_samples, n_slices or 1, *recipe.size), dtype=np.float32)
    masks = np.zeros(images.shape, dtype=bool)
    for i, seed in enumerate(seed_sequence(random_state).spawn(n_samples)):
        images[i], masks[i], _ = recipe.make(kinds[i % len(kinds)] if kinds else None, seed)
    if n_slices is None:
        return images[:, 0], masks[:, 0]
    return images, masks


class Sample(NamedTuple):
    """One phantom: image (float32), lesion mask and brain mask (bool), each of shape (D, H, W)."""

    image: np.ndarray
    mask: np.ndarray
    brain: np.ndarray


@dataclass(frozen=True)
class Recipe:
    """What all samples of a set have in common: arguments of `make_brain_phantom`, checked."""

    size: tuple[int, int]
    modality: str
    n_slices: int | None
    skull: bool

    @property
    def pixel(self) -> float:
        """Width of a pixel in mm, such that the whole head fits into the frame."""
        around = 2 * _SKULL if self.skull else 0.0
        height, width = self.size
        return max(_MARGIN * (BRAIN_LENGTH + around) / height, _MARGIN * (BRAIN_WIDTH + around) / width)

    def frame(self, level: float = 0.0) -> Frame:
        """Return the grid of a volume, or of the slice at a height of `level` mm."""
        height, width = self.size
        z = np.array([level])
        if self.n_slices is not None:
            edges = np.linspace(*_VOLUME_LEVELS, self.n_slices + 1)
            z = (edges[1:] + edges[:-1]) / 2
        x = (np.arange(width) - (width - 1) / 2) * self.pixel
        y = ((height - 1) / 2 - np.arange(height)) * self.pixel
        return Frame(x, y, z)

    def affine(self) -> np.ndarray:
        """Return the RAS affine of a volume whose axes were brought to x, y, z with y running forwards."""
        frame = self.frame()
        thickness = (_VOLUME_LEVELS[1] - _VOLUME_LEVELS[0]) / len(frame.z)
        affine = np.diag([self.pixel, self.pixel, thickness, 1.0])
        affine[:3, 3] = frame.x[0], frame.y[-1], frame.z[0]
        return affine

    def make(self, kind: str | None, seed: np.random.SeedSequence) -> Sample:
        """Make one sample, healthy if `kind` is None."""
        # Lesions draw from a stream of their own: the same seed without lesions gives the healthy twin.
        anatomy, scanner, pathology = (np.random.default_rng(child) for child in seed.spawn(3))
        frame = self.frame(anatomy.uniform(*_SLICE_LEVELS))
        atlas = load_atlas(round(0.4 * frame.pixel, 1) if frame.pixel > 2 else 0.0)
        points = _deformed(frame, anatomy)
        levels = _contrast(self.modality, scanner)
        shares = atlas.tissues(points)
        lesions = []
        if kind is not None:
            brain_depth = atlas.depth(points)
            lesions = plan_lesions(kind, frame, brain_depth, shares, pathology)
            if kind == "mass":
                points = points + displace(frame.points(), lesions[0], brain_depth)
                shares = atlas.tissues(points)
        shares = _marked(shares, points)
        image = np.tensordot([levels[tissue] for tissue in ("white", "grey", "csf")], shares, axes=1)
        mask = np.zeros(image.shape, dtype=bool)
        for lesion in lesions:
            image, painted = paint_lesion(image, lesion, frame, shares, levels, pathology)
            mask |= painted
        brain = shares.sum(axis=0)
        if self.skull:
            image = _with_skull(image, brain, atlas.depth(points, head=True), levels)
        return Sample(_acquired(image, frame, scanner), mask, brain > 0.5)


def _deformed(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """Return for each point of the frame the point of the atlas that lies there, shape (3, D, H, W)."""
    tilt, nod, turn = np.deg2rad(rng.normal(0, (2.0, 2.5, 3.0)).clip(-7, 7))
    rotation = _rotation(0, nod) @ _rotation(1, tilt) @ _rotation(2, turn)
    scale = rng.uniform(0.96, 1.04) * rng.uniform(0.97, 1.03, 3)
    points = np.tensordot(rotation / scale, frame.points(), axes=1)
    points += 2.2 * smooth_field(frame, rng, wavelength=80.0, n_fields=3)
    points += 0.7 * smooth_field(frame, rng, wavelength=28.0, n_fields=3)
    # The hemispheres are shifted against each other.
    points[1] -= rng.uniform(3.0, 5.0) * np.tanh(points[0] / 35)
    centre, extent = (np.array(v).reshape(3, 1, 1, 1) for v in (_VENTRICLE, _VENTRICLE_EXTENT))
    nearness = np.exp(-0.5 * np.sum(((points - centre) / extent) ** 2, axis=0))
    points -= rng.uniform(0.25, 0.45) * nearness * (points - centre)
    return points.astype(np.float32)


def _rotation(axis: int, angle: float) -> np.ndarray:
    matrix = np.eye(3)
    a, b = (i for i in range(3) if i != axis)
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


def _marked(shares: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Open a perivascular space in the left hemisphere: fluid in place of tissue."""
    distance = np.hypot(points[0] - _MARK[0], points[1] - _MARK[1])
    opened = np.clip(1.4 * (1 - distance / _MARK_RADIUS), 0, 0.85) * shares.sum(axis=0)
    shares = shares * (1 - opened)
    shares[2] += opened
    return shares


def _contrast(modality: str, rng: np.random.Generator) -> dict[str, float]:
    gain = rng.normal(1, 0.03)
    return {tissue: gain * level + rng.normal(0, 0.015) for tissue, level in MODALITIES[modality].items()}


def _with_skull(
    image: np.ndarray, brain: np.ndarray, depth: np.ndarray, levels: dict[str, float]
) -> np.ndarray:
    """Surround the brain with fluid, bone, scalp and air, by the depth below the closed brain's surface."""
    layers = ((-3.0, levels["csf"]), (-8.0, 0.05), (-_SKULL, levels["scalp"]))
    outside = np.zeros_like(image)
    for lowest, level in reversed(layers):
        outside += np.clip(depth - lowest + 0.5, 0, 1) * (level - outside)
    return image + (1 - np.clip(brain, 0, 1)) * outside


def _acquired(image: np.ndarray, frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """Add what a scanner does: a bias field and Rician noise; air that is exactly 0 stays so."""
    bias = 1 + np.clip(0.05 * smooth_field(frame, rng, wavelength=180.0)[0], -0.12, 0.12)
    noise = rng.uniform(0.008, 0.025) * rng.standard_normal((2, *image.shape))
    noisy = np.hypot(image * bias + noise[0], noise[1])
    return np.where(image > 0.02, np.clip(noisy, 0, 1), 0).astype(np.float32)


def seed_sequence(random_state: int | np.random.RandomState | None) -> np.random.SeedSequence:
    """Return the root of the samples' seeds."""
    seed = draw_seed(random_state)
    if seed < 0:
        raise InputError(f"random_state must not be negative; got {seed}. Pass an integer >= 0 or None.")
    return np.random.SeedSequence(seed)


def check_count(name: str, value: int, lowest: int = 1) -> int:
    """Return a count as int, or raise InputError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < lowest:
        raise InputError(f"{name} must be an integer of at least {lowest}; got {value!r}.")
    return int(value)


def check_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Return `size` as (height, width), or raise InputError."""
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or any(not isinstance(side, numbers.Integral) or side < MIN_SIZE for side in sides):
        raise InputError(
            f"size must be an integer or (height, width) of at least {MIN_SIZE} pixels; got {size!r}."
        )
    return int(sides[0]), int(sides[1])


def check_modality(modality: str) -> str:
    """Return a known modality in lower case, or raise InputError."""
    if not isinstance(modality, str) or modality.lower() not in MODALITIES:
        raise InputError(f"modality must be one of {', '.join(MODALITIES)}; got {modality!r}.")
    return modality.lower()


def check_kinds(lesions: bool | str | Sequence[str]) -> tuple[str, ...]:
    """Return the kinds of lesions to plant, none for False, or raise InputError."""
    if isinstance(lesions, bool | np.bool_):
        return LESION_KINDS if lesions else ()
    kinds = (lesions,) if isinstance(lesions, str) else lesions
    if not isinstance(kinds, Sequence) or not kinds or any(kind not in LESION_KINDS for kind in kinds):
        raise InputError(
            f"lesions must be True, False or kinds out of {', '.join(LESION_KINDS)}; got {lesions!r}."
        )
    return tuple(kinds)
