import numpy as np
import pytest
from conftest import make_slices, plant_lesions
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skmimood import SliceStandardizer, load_model, save_model
from skmimood.exceptions import InputError
from skmimood.preprocessing.heads import eroded, head_masks

HEALTHY = make_slices(6, seed=3)


def test_two_scanners_of_one_head_give_the_same_slices():
    other = np.where(HEALTHY > 0, 0.1 + 0.6 * HEALTHY, 0).astype(np.float32)
    standardizer = SliceStandardizer().fit(HEALTHY)
    same, changed = standardizer.transform(HEALTHY), standardizer.transform(other)
    assert np.abs(same - changed).max() < 0.02
    assert np.abs(HEALTHY - other).max() > 0.15


def test_the_interior_has_the_median_and_spread_that_are_promised():
    slices = SliceStandardizer().fit(HEALTHY).transform(HEALTHY)
    inside = slices[0][eroded(head_masks(HEALTHY[:1]), 2)[0]]
    assert np.median(inside) == pytest.approx(0.4, abs=0.01)
    assert inside.std() == pytest.approx(0.1, abs=0.02)


def test_a_lesion_stays_brighter_than_its_surroundings_and_the_background_is_0():
    lesions, masks = plant_lesions(HEALTHY)
    slices = SliceStandardizer().fit(HEALTHY).transform(lesions)
    assert slices[masks].min() > slices[~masks & (HEALTHY > 0)].mean()
    assert slices[HEALTHY == 0].max() == 0
    assert slices[(HEALTHY > 0.1)].min() > 0


def test_a_slice_does_not_depend_on_its_neighbours():
    standardizer = SliceStandardizer().fit(HEALTHY)
    np.testing.assert_array_equal(standardizer.transform(HEALTHY)[2:3], standardizer.transform(HEALTHY[2:3]))


def test_empty_and_uniform_slices_are_no_errors():
    slices = np.zeros((2, 16, 16), np.float32)
    slices[1] = 0.5
    standardised = SliceStandardizer().fit(slices).transform(slices)
    assert standardised[0].max() == 0
    assert np.isfinite(standardised).all()


def test_it_is_saved_and_cloned(tmp_path):
    standardizer = SliceStandardizer().fit(HEALTHY)
    save_model(standardizer, tmp_path / "model")
    np.testing.assert_array_equal(
        load_model(tmp_path / "model").transform(HEALTHY), standardizer.transform(HEALTHY)
    )
    with pytest.raises(NotFittedError):
        clone(standardizer).transform(HEALTHY)


def test_another_size_is_refused():
    with pytest.raises(InputError, match="32 x 32"):
        SliceStandardizer().fit(HEALTHY).transform(HEALTHY[:, :20])
