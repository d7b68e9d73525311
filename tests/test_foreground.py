"""Heads of known extent under the air, padding, clipping and cropping that people's files have."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from skmimood.preprocessing import foreground_mask

WHOLE = ((-1.3, 1.3),) * 3  # of the frame along each axis, in radii of the head
CROPPED = {
    "loose": ((-1.9, 1.9),) * 3,
    "tight": ((-1.06, 1.06),) * 3,
    "neck": ((-1.3, 1.3), (-1.3, 1.3), (-0.6, 1.3)),
    "nose": ((-1.3, 1.3), (-1.3, 0.75), (-1.3, 1.3)),
    "three faces": ((-1.3, 0.7), (-1.3, 0.75), (-0.6, 1.3)),
    "slab": ((-1.2, 1.2), (-1.2, 1.2), (-0.5, 0.6)),
    "four faces": ((-0.8, 0.8), (-0.8, 0.8), (-1.2, 1.2)),
    "five faces": ((-0.85, 0.85), (-0.85, 0.85), (-0.7, 1.3)),
    "quarter": ((0, 1.3), (0, 1.3), (-1.2, 1.2)),
    "eighth": ((0, 1.3),) * 3,
}


def radii(window, radius=14):
    """Distance from the head's centre in its radii, on the grid of a frame."""
    sides = [np.arange(round(low * radius), round(high * radius) + 1) / radius for low, high in window]
    return np.meshgrid(*sides, indexing="ij")


def head(window=WHOLE, seed=0):
    """Scalp, skull, CSF and a brain of varied tissue on exact zeros, and where it is."""
    distance = np.sqrt(sum(axis**2 for axis in radii(window)))
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=distance.shape), 2.0)
    brain = 0.6 + 0.1 * texture / texture.std()
    values = np.select([distance > 0.9, distance > 0.82], [0.9, 0.3], brain)
    truth = distance < 1
    return np.where(truth, values, 0.0), truth


def rician(values, noise=0.03, seed=1):
    real, imaginary = np.random.default_rng(seed).normal(0, noise, (2, *values.shape))
    return np.hypot(values + real, imaginary)


def gaussian(values, noise=0.03, seed=1):
    return values + np.random.default_rng(seed).normal(0, noise, values.shape)


def hounsfield(values, truth, noise=12):
    return gaussian(np.where(truth, 1000 * (values - 0.6) ** 2 + 40, -1000), noise)


def clipped(values, low, high):
    return np.clip(values, *np.percentile(values, [low, high]))


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


AIR = {
    "none": lambda values: values,
    "tiny noise": lambda values: gaussian(values, 0.0005),
    "Rician noise": rician,
    "much Rician noise": lambda values: rician(values, 0.15),
    "Gaussian noise": gaussian,
    "much Gaussian noise": lambda values: gaussian(values, 0.15),
    "eight bits": lambda values: np.round(150 * rician(values)).astype(np.uint8),
    "five bits": lambda values: np.round(30 * rician(values)).astype(np.int16),
    "clipped at the top": lambda values: clipped(rician(values), 0, 95),
    "clipped a little at the top": lambda values: clipped(gaussian(values), 0, 99.5),
    "clipped on both sides": lambda values: clipped(gaussian(values), 5, 95),
    "clipped in the air": lambda values: clipped(rician(values), 20, 99),
    "rounded and clipped": lambda values: np.minimum(np.round(100 * rician(values)), 90),
    "far below zero": lambda values: 300 * gaussian(values) - 5000,
    "far above zero": lambda values: 300 * gaussian(values) + 5000,
    "bright": lambda values: 1.2 - rician(values),
    "bright and clipped": lambda values: clipped(1.2 - rician(values), 1, 95),
}


@pytest.mark.parametrize("air", AIR)
@pytest.mark.parametrize("window", ["whole", *CROPPED])
def test_the_head_is_found_in_any_air_and_however_it_is_cropped(window, air):
    values, truth = head(CROPPED.get(window, WHOLE))
    assert dice(foreground_mask(AIR[air](values)), truth) > 0.95


@pytest.mark.parametrize("window", ["whole", *CROPPED])
@pytest.mark.parametrize(
    ("shape", "padding"), [*itertools.product(["box", "circle"], [-1024, -2000, -3024]), ("box", 0)]
)
def test_the_air_of_ct_is_found_inside_its_padding(window, padding, shape):
    values, truth = head(CROPPED.get(window, WHOLE))
    x, y, _ = radii(CROPPED.get(window, WHOLE))
    units = np.round(hounsfield(values, truth))
    if shape == "circle" and window == "five faces":
        pytest.skip("the circle shows hardly any air")
    if shape == "circle":
        outside = np.hypot(x, y) > 1.1 * max(np.abs(x).max(), np.abs(y).max())
        units, truth = np.where(outside, padding, units), truth & ~outside
    else:
        units, truth = np.pad(units, 4, constant_values=padding), np.pad(truth, 4)
    assert dice(foreground_mask(units), truth) > 0.95


@pytest.mark.parametrize("noise", [rician, gaussian])
@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("width", [1, ((0, 6), (0, 0), (0, 0)), 9])
def test_noisy_air_is_found_inside_padding(noise, value, width):
    values, truth = head()
    padded = np.pad(noise(values), width, constant_values=value)
    assert dice(foreground_mask(padded), np.pad(truth, width)) > 0.95


@pytest.mark.parametrize("filling", ["zeros", "noise"])
def test_a_removed_face_is_background(filling):
    values, truth = head()
    _, y, z = radii(WHOLE)
    face = (y > 0.55) & (z < 0.2)
    removed = np.zeros(values.shape) if filling == "zeros" else rician(np.zeros(values.shape), seed=7)
    assert dice(foreground_mask(np.where(face, removed, rician(values))), truth & ~face) > 0.95


def test_a_head_rest_is_not_the_head():
    values, truth = head(CROPPED["loose"])
    x, y, _ = radii(CROPPED["loose"])
    rest = (np.abs(np.hypot(x, y) - 1.25) < 0.05) & (y < -0.5)
    units = np.where(rest, 200, hounsfield(values, truth))
    assert dice(foreground_mask(units), truth) > 0.95


@pytest.mark.parametrize("name", ["zero", "zero, noisy inside", "mean zero", "minimum", "below", "clipped"])
@pytest.mark.parametrize("window", ["whole", "tight", "loose", "slab", "quarter"])
def test_a_stripped_brain_is_whole_whatever_its_background_is(window, name):
    values, truth = head(CROPPED.get(window, WHOLE))
    brain = np.where(values == 0.9, 0.25, values)  # CSF at the surface instead of scalp
    scores = (brain - brain[truth].mean()) / brain[truth].std()
    scan = {
        "zero": np.where(truth, brain, 0),
        "zero, noisy inside": np.where(truth, rician(brain), 0),
        "mean zero": np.where(truth, scores, 0),
        "minimum": np.where(truth, scores, scores[truth].min() - 2),
        "below": np.where(truth, scores, -10),
        "clipped": np.where(truth, clipped(scores, 5, 95), 0),
    }[name]
    assert dice(foreground_mask(scan.astype(np.float32)), truth) > 0.95


@pytest.mark.parametrize("name", ["Rician noise", "much Gaussian noise", "clipped at the top", "eight bits"])
def test_neither_unit_nor_offset_nor_orientation_change_the_mask(name):
    values = AIR[name](head(CROPPED["three faces"])[0]).astype(np.float32)
    found = foreground_mask(values)
    for scale, offset in itertools.product((1e-6, 1.0, 3e5), (0.0, -40.0, 7.0)):
        changed = ((values.astype(float) + offset) * scale).astype(np.float32)
        assert dice(foreground_mask(changed), found) > 0.9999
    for axes in itertools.permutations(range(3)):
        turned = np.flip(values.transpose(axes), axes[0])
        assert dice(foreground_mask(turned), np.flip(found.transpose(axes), axes[0])) > 0.9999


def test_a_bias_field_over_head_and_air_is_borne():
    values, truth = head()
    x, y, _ = radii(WHOLE)
    ramp = 0.8 + 0.4 * (x + y) / 2.6
    assert dice(foreground_mask(rician(values * ramp)), truth) > 0.95
    assert dice(foreground_mask(rician(values) * ramp + 0.1 * ramp), truth) > 0.95


def test_flat_and_thin_volumes_are_taken():
    values, truth = head()
    middle = values.shape[2] // 2
    for thin in (1, 2, 3):
        part = slice(middle, middle + thin)
        assert dice(foreground_mask(gaussian(values)[:, :, part]), truth[:, :, part]) > 0.95
