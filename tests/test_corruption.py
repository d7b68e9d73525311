import numpy as np
import pytest
from scipy.ndimage import label

from skmimood.exceptions import InputError
from skmimood.tokens.corruption import (
    CORRUPTIONS,
    MASK_GENERATORS,
    draw_masks,
    draw_replacements,
    law_of,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("grid", [(20, 20), (8, 12), (2, 2), (1, 5)])
@pytest.mark.parametrize("name", sorted(MASK_GENERATORS))
def test_every_mask_masks_something(rng, name, grid):
    masks = draw_masks(name, 50, grid, rng)
    assert masks.shape == (50, *grid)
    assert masks.dtype == bool
    assert masks.any((1, 2)).all()


def test_brush_masks_cover_1_to_70_percent(rng):
    coverage = draw_masks("brush", 500, (20, 20), rng).mean((1, 2))
    assert coverage.min() >= 0.01
    assert coverage.max() <= 0.7
    assert coverage.std() > 0.05


def test_brush_masks_are_strokes_not_scattered_tokens(rng):
    parts = [label(mask, np.ones((3, 3)))[1] for mask in draw_masks("brush", 100, (20, 20), rng)]
    scattered = [label(mask, np.ones((3, 3)))[1] for mask in draw_masks("maskgit_cosine", 100, (20, 20), rng)]
    assert np.mean(parts) < 2.5 < np.mean(scattered)


def test_brush_strokes_change_their_width(rng):
    widths = [mask.sum(1)[mask.any(1)] for mask in draw_masks("brush", 100, (20, 20), rng)]
    assert np.mean([len(set(rows)) > 1 for rows in widths]) > 0.9


def test_the_share_of_maskgit_masks_follows_the_cosine(rng):
    coverage = draw_masks("maskgit_cosine", 2000, (20, 20), rng).mean((1, 2))
    assert coverage.mean() == pytest.approx(2 / np.pi, abs=0.02)


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_replacements_are_codes_of_every_position(rng, name):
    tokens = rng.integers(0, 50, (16, 8, 8))
    wrong = draw_replacements(name, tokens, 50, rng)
    assert wrong.shape == tokens.shape
    assert wrong.min() >= 0
    assert wrong.max() < 50
    assert (wrong != tokens).mean() > 0.5


def test_a_law_of_an_earlier_version_is_named_when_it_is_to_train(rng):
    is_law, _ = law_of({"random", "painted"})
    assert is_law({"painted": 0.5, "foreign": 0.5})
    with pytest.raises(InputError, match=r"the law 'foreign' any more; use one of \['random'\]"):
        draw_replacements({"random": 1, "foreign": 1}, np.zeros((1, 2, 2), int), 9, rng)


def test_a_mixture_draws_its_laws_by_weight(rng):
    tokens = np.zeros((4000, 4, 4), int)
    mixture = {lambda t, n, r: t + 1: 3.0, lambda t, n, r: t + 2: 1.0}
    wrong = draw_replacements(mixture, tokens, 9, rng)
    assert (wrong[:, 0, 0] == 1).mean() == pytest.approx(0.75, abs=0.03)


def test_the_same_generator_state_draws_the_same_masks():
    first, second = (draw_masks("brush", 5, (9, 9), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
