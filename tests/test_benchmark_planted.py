"""Lesions that are planted into real brains: two laws, with exact masks and untouched twins."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from benchmarks.data.gliomas import GLIOMAS, Grade, _grown
from benchmarks.data.phantom_lesions import PHANTOM_LESIONS
from benchmarks.data.planted import Brain, Law, plant
from benchmarks.data.slices import SliceSet
from skmimood.datasets import LESION_KINDS

LAWS = pytest.mark.parametrize("law", [PHANTOM_LESIONS, GLIOMAS], ids=["phantom", "gliomas"])


@pytest.fixture(scope="module")
def brain():
    """A ball of fluid, grey and white matter from the centre outwards, 24 slices, with noise."""
    z, y, x = np.meshgrid(np.linspace(-60, 60, 24), *[np.linspace(-96, 96, 64)] * 2, indexing="ij")
    radius = np.sqrt((z / 1.2) ** 2 + y**2 + x**2)
    image = np.select([radius < 12, radius < 55, radius < 70], [0.15, 0.85, 0.55], 0.0)
    image = np.where(image > 0, image + np.random.default_rng(0).normal(0, 0.01, image.shape), 0)
    n = len(image)
    return SliceSet(
        dataset="ixi-synthetic",
        images=(image * 255).round().clip(0, 255).astype(np.uint8).astype(np.float32) / 255,
        lesions=np.zeros(image.shape, bool),
        head=radius < 70,
        region=radius < 70,
        patients=np.full(n, "IXI001"),
        splits=np.full(n, "test"),
        kinds=np.full(n, ""),
        region_name="brain",
        spacing=3.0,
        vanished=np.zeros(n, bool),
        index=np.arange(n),
        distance=np.full(n, 5.0),
    )


@LAWS
def test_planted_lesions_are_of_every_kind_and_their_twins_are_untouched(brain, law):
    planted = plant(brain, thickness=5.0, turn=0, law=law)
    tumour, twins = planted[planted.has_lesion], planted[~planted.has_lesion]
    assert {*tumour.kinds} == {*law.kinds}
    assert len(tumour) == len(twins)
    assert not (tumour.lesions & ~tumour.head).any()
    originals = {one.tobytes() for one in brain.images}
    assert all(one.tobytes() in originals for one in twins.images)


def test_planted_lesions_change_pixels_under_their_mask_alone_unless_they_push(brain):
    planted = plant(brain, thickness=5.0, turn=0, law=PHANTOM_LESIONS)
    for kind in LESION_KINDS:
        tumour = planted[planted.kinds == kind]
        start = int(np.flatnonzero(planted.kinds == kind)[0])
        twin = planted[start + len(tumour) : start + 2 * len(tumour)]
        changed = tumour.images != twin.images
        assert (changed & tumour.lesions).any()
        assert (changed & ~tumour.lesions).any() == (kind == "mass")


def test_a_slice_whose_planted_lesion_has_no_pixel_is_not_healthy(brain):
    law = Law(
        ("none",), lambda brain, kind, slab, rng: (brain.images[slab], np.zeros_like(brain.depth[slab], bool))
    )
    planted = plant(brain, thickness=5.0, turn=0, law=law)
    assert not planted.has_lesion.any()
    assert planted.vanished.tolist() == (planted.kinds != "").tolist()
    assert not planted.evaluated("test").vanished.any()
    assert not planted.used(100).vanished.any()


@LAWS
def test_planted_lesions_depend_on_the_subject_alone_and_move_on_with_the_turn(brain, law):
    first, second = (plant(brain, thickness=5.0, turn=1, law=law) for _ in range(2))
    assert first.fingerprint() == second.fingerprint()
    other = replace(brain, patients=np.full(len(brain), "IXI002"))
    assert plant(other, thickness=5.0, turn=1, law=law).fingerprint() != first.fingerprint()
    assert plant(brain, thickness=5.0, turn=0, law=law).kinds[0] == law.kinds[0]
    assert first.kinds[0] == law.kinds[1]


@pytest.fixture(scope="module")
def grown(brain):
    """Tumours of each kind in the middle of the brain: the brain, where cells are, and images by kind."""
    known, slab = Brain.of(brain, 5.0), np.arange(24)
    return known, {
        kind: GLIOMAS.change(known, kind, slab, np.random.default_rng(3)) for kind in GLIOMAS.kinds
    }


def test_gliomas_grow_in_tissue_alone(grown):
    brain, changed = grown
    for _, mask in changed.values():
        assert mask.sum() > 20
        assert not mask[brain.shares.sum(0) == 0].any()
        assert not mask[brain.shares[2] > 0.95].any()


def test_gliomas_darken_tissue_and_the_mask_holds_what_changes_most(grown):
    brain, changed = grown
    images, mask = changed["diffuse"]
    change = images - brain.images
    assert change[mask].mean() < -0.1
    assert np.abs(change[~mask]).max() < np.abs(change[mask]).max() / 2
    far = gaussian_filter(mask.astype(float), 3) == 0
    assert far.any()
    np.testing.assert_allclose(change[far], 0, atol=0.02)


def test_a_core_is_as_dark_as_fluid_and_a_rim_brighter_than_white_matter(grown):
    brain, changed = grown
    darkest = {kind: images[mask].min() for kind, (images, mask) in changed.items()}
    brightest = {kind: images[mask].max() for kind, (images, mask) in changed.items()}
    middle = (brain.levels["csf"] + brain.levels["grey"]) / 2
    assert darkest["necrotic"] < middle
    assert darkest["enhancing"] < middle
    assert brightest["enhancing"] > brain.levels["white"] + 0.05
    assert brightest["necrotic"] < brain.levels["white"] + 0.05


def test_cells_spread_further_in_white_than_in_grey_matter():
    shares = np.zeros((3, 21, 21, 41), np.float32)
    shares[0, ..., :20], shares[1, ..., 20:] = 1, 1
    grade = Grade(widths=(3.0, 3.0), radii=(10.0, 10.0), until=0.2)
    seed = np.array([10, 10, 20])
    density = _grown(grade, shares, seed, np.full(3, 2.0), np.random.default_rng(0))
    line = density[10, 10] > 0.2
    assert line[:20].sum() > 1.5 * line[21:].sum() > 0
