"""Labels of tokens, from masks of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from skmimood.exceptions import InputError
from skmimood.metrics._checks import check_binary


def token_labels(masks: Any, factor: int | tuple[int, int] = 8, *, rule: str = "any") -> np.ndarray:
    """Bring pixel masks to the token grid.

    Parameters
    ----------
    masks : array-like of bool, shape (n, H, W)
        Lesion masks.
    factor : int or (int, int), default=8
        Pixels per token, along both axes or along rows and columns: the paper's f.
    rule : {"any", "half", "nearest"}, default="any"
        A token is a lesion if any of its pixels is, if at least half of them are, or if its central pixel is. The
        centre of an even number of pixels is the pixel after it; of a token cut by the image's edge, the last pixel
        there is. What lies outside the image counts as healthy.

    Returns
    -------
    ndarray of shape (n, ceil(H / factor), ceil(W / factor)), bool

    Raises
    ------
    InputError
        If masks are not binary or not of shape (n, H, W), or `factor` or `rule` is not one of the above.
    """
    pixels = check_binary("masks", masks)
    if pixels.ndim != 3:
        raise InputError(
            f"masks must have shape (n, height, width); got {pixels.shape}. For one, pass mask[np.newaxis]."
        )
    fy, fx = (factor, factor) if isinstance(factor, int | np.integer) else factor
    if min(fy, fx) < 1:
        raise InputError(f"factor must be at least 1; got {factor!r}. It is the number of pixels in a token.")
    n, height, width = pixels.shape
    h, w = -(-height // fy), -(-width // fx)
    if rule == "nearest":
        rows = np.minimum(np.arange(h) * fy + fy // 2, height - 1)
        columns = np.minimum(np.arange(w) * fx + fx // 2, width - 1)
        return pixels[:, rows[:, None], columns]
    padded = np.pad(pixels, ((0, 0), (0, h * fy - height), (0, w * fx - width)))
    area = padded.reshape(n, h, fy, w, fx).sum(axis=(2, 4))
    if rule == "any":
        return area > 0
    if rule == "half":
        return 2 * area >= fy * fx
    raise InputError(f"rule must be 'any', 'half' or 'nearest'; got {rule!r}.")
