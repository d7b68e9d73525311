"""Results that only rounding may tell apart: of other batches, beside other slices, in another reading.

The figures are those that `docs/inputs.md` promises.
"""

import numpy as np

ROUNDING = {"float32": 1e-4, "bfloat16": 1e-2}  # of the largest value
DECIDED_BY_ROUNDING = {
    "float32": 0.0,
    "bfloat16": 0.01,
}  # share of the values: a token that is drawn otherwise


def assert_same(found, expected, precision="float32"):
    """Assert that two arrays of tokens, scores or maps are equal but for the rounding of a precision."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    differs = np.abs(found - expected) > ROUNDING[precision] * np.abs(expected).max()
    assert differs.mean() <= DECIDED_BY_ROUNDING[precision], (
        f"{differs.sum()} of {differs.size} values differ"
    )
