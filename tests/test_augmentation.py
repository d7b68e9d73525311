import pytest
import torch
from conftest import make_slices

from skmimood.training.augmentation import flip_and_rotate, vary_intensity

IMAGES = torch.from_numpy(make_slices(64))[:, None]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_intensities_vary_within_the_range_and_the_background_stays_empty():
    varied = vary_intensity(IMAGES, generator())
    assert 0 <= varied.min() <= varied.max() <= 1
    assert varied[IMAGES == 0].max() == 0
    assert (varied - IMAGES).abs().mean((1, 2, 3)).min() > 0.005


def test_a_rotation_by_nothing_without_a_flip_changes_nothing():
    turned = flip_and_rotate(IMAGES, generator(), flip=False, max_degrees=0.0)
    torch.testing.assert_close(turned, IMAGES, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (32, 24)])
def test_half_of_the_images_are_mirrored_left_to_right(size):
    images = torch.rand(400, 1, *size, generator=generator())
    turned = flip_and_rotate(images, generator(), max_degrees=0.0)
    kept = (turned - images).abs().amax((1, 2, 3)) < 1e-4
    mirrored = (turned - images.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    assert (kept | mirrored).all()
    assert 0.4 < mirrored.float().mean() < 0.6


def test_rotation_keeps_a_centred_disc_where_it_is():
    rows, columns = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(24) - 11.5, indexing="ij")
    disc = (rows**2 + columns**2 < 64).float()[None, None].expand(16, 1, 40, 24)
    turned = flip_and_rotate(disc, generator(), max_degrees=45.0)
    assert (turned - disc).abs().mean() < 0.02
