"""A toy head in CT, with skull, head-rest and bleedings."""

import numpy as np
from scipy import ndimage

SPACING = (2.0, 2.0, 5.0)
SHAPE = (100, 110, 24)


def head_ct(*, skull=8.0, gap=0.0, blood=70.0, seed=0):
    """Hounsfield units of a head of 150 mm on a head-rest, its brain, and a bleeding at the skull and one inside."""
    x, y, z = (
        (np.arange(n) - n / 2)[:, None, None].swapaxes(0, i) * side
        for i, (n, side) in enumerate(zip(SHAPE, SPACING, strict=True))
    )
    distance = np.sqrt(x**2 + y**2 + z**2)
    brain = distance < 60
    bone = ~brain & (distance < 60 + skull) & ~((np.abs(x) < gap / 2) & (y > 0))
    data = np.select([brain, bone, distance < 75], [35.0, 900.0, 40.0], -1000.0)
    data[(np.abs(np.hypot(x, y) - 95) < 3) & (y < -60) & (z > -99)] = 600.0
    at_skull = brain & (np.sqrt((x - 52) ** 2 + y**2 + z**2) < 14)
    inside = np.sqrt(x**2 + (y + 20) ** 2 + z**2) < 8
    data[at_skull | inside] = blood
    noise = np.random.default_rng(seed).normal(0, 4, SHAPE)
    return ndimage.gaussian_filter(data, (0.4, 0.4, 0)) + noise, brain, at_skull, inside


def windowed(hounsfield):
    """Bytes of a picture in the brain window."""
    return np.round(np.clip(hounsfield / 80, 0, 1) * 255).astype(np.uint8)
