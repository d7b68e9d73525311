import numpy as np
import pytest
from sklearn.utils import _safe_indexing, indexable

from skmimood import TokenizedScans
from skmimood.exceptions import InputError


@pytest.fixture
def scans():
    return TokenizedScans(
        np.arange(5 * 64, dtype=np.float32).reshape(5, 8, 8),
        np.arange(5 * 4).reshape(5, 2, 2),
        tokenizer=None,
    )


def test_length_and_shape_are_those_of_the_images(scans):
    assert len(scans) == 5
    assert scans.shape == (5, 8, 8)


@pytest.mark.parametrize(
    "key", [slice(1, 3), [4, 0], np.array([True, False, True, False, False]), (slice(2, 4), ...)]
)
def test_indexing_takes_images_and_tokens_together(scans, key):
    part = scans[key]
    index = key[0] if isinstance(key, tuple) else key
    np.testing.assert_array_equal(part.images, scans.images[index])
    np.testing.assert_array_equal(part.tokens, scans.tokens[index])


@pytest.mark.parametrize("index", [2, -1])
def test_one_index_keeps_the_sample_axis(scans, index):
    assert len(scans[index]) == 1
    np.testing.assert_array_equal(scans[index].tokens[0], scans.tokens[index])


def test_iterating_ends(scans):
    assert [len(sample) for sample in scans] == [1] * 5
    with pytest.raises(IndexError):
        scans[5]


def test_scikit_learn_can_index_it(scans):
    indexable(scans, np.zeros(5))
    np.testing.assert_array_equal(_safe_indexing(scans, np.array([3, 1])).tokens, scans.tokens[[3, 1]])


def test_it_is_frozen(scans):
    with pytest.raises(AttributeError):
        scans.tokens = None


def test_parts_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="same n"):
        TokenizedScans(np.zeros((3, 8, 8)), np.zeros((2, 1, 1)), tokenizer=None)
