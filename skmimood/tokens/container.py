"""The container that travels between the steps of a pipeline."""

# ruff: noqa: D102  (what the protocols list is documented where it is implemented)

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from skmimood.exceptions import InputError


class Tokenizer(Protocol):
    """What the later steps ask of the tokenizer."""

    @property
    def n_codes_(self) -> int: ...
    @property
    def codes(self) -> np.ndarray: ...
    @property
    def downsampling(self) -> int: ...
    def decode_tensor(self, tokens: Tensor) -> Tensor: ...
    def seen(self, images: np.ndarray) -> np.ndarray: ...
    def unseen(self, seen: np.ndarray, images: np.ndarray) -> np.ndarray: ...
    def training_tokens(self, X: TokenizedScans, *, marked: bool = False) -> np.ndarray: ...
    def painted_tokens(
        self, X: TokenizedScans, n_copies: int, *, marked: bool = False
    ) -> tuple[np.ndarray, np.ndarray]: ...


class TokenDetector(Protocol):
    """What a restorer asks of the token detector."""

    threshold: float

    @property
    def leaves_out_background(self) -> bool: ...
    def score_tensor(self, tokens: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False, repr=False)
class TokenizedScans:
    """Slices with their tokens, and the fitted estimators that made them.

    It can be indexed along samples like an array, which is what scikit-learn's splitters and scorers need.

    Parameters
    ----------
    images : ndarray of shape (n, H, W) or (n, C, H, W), float32
        The slices, in [0, 1].
    tokens : ndarray of shape (n, h, w), int64
        Indices into the tokenizer's codebook.
    tokenizer : VQTokenizer
        Turns tokens back into images.
    anomaly : ndarray of shape (n, h, w), float32, or None
        The detector's score of each token; None before a detector has seen the slices.
    detector : fitted token detector or None
        Scores the tokens again after each step of a restoration.
    evidence : ndarray of shape (n, H, W), float32, or None
        What a `PixelEvidence` found in the slices as the tokenizer's network sees them; None without one.
    denoised : ndarray of the shape of ``images``, float32, or None
        What it restored them to.
    """

    images: np.ndarray
    tokens: np.ndarray
    tokenizer: Tokenizer
    anomaly: np.ndarray | None = None
    detector: TokenDetector | None = None
    evidence: np.ndarray | None = None
    denoised: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {len(part) for part in self._arrays().values()}
        if len(lengths) != 1 or self.images.ndim not in (3, 4) or self.tokens.ndim != 3:
            raise InputError(
                "images must have shape (n, H, W) or (n, C, H, W), tokens and anomaly (n, h, w) with the same n; got "
                f"{[getattr(part, 'shape', None) for part in (self.images, self.tokens, self.anomaly)]}."
            )

    def _arrays(self) -> dict[str, np.ndarray]:
        names = ("images", "tokens", "anomaly", "evidence", "denoised")
        return {name: array for name in names if (array := getattr(self, name)) is not None}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (n, H, W) or (n, C, H, W) of the images."""
        return self.images.shape

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"TokenizedScans(images {self.images.shape}, tokens {self.tokens.shape})"

    def __getitem__(self, key: Any) -> TokenizedScans:
        if isinstance(key, tuple):  # scikit-learn indexes arrays as X[key, ...]
            key = key[0]
        if isinstance(key, int | np.integer):
            if not -len(self) <= key < len(self):
                raise IndexError(f"sample {key} is out of range for {len(self)} samples")
            key = slice(key, key + 1 or None)
        # Contiguous, since torch shares no memory with a reversed view.
        chosen: dict[str, Any] = {
            name: np.ascontiguousarray(array[key]) for name, array in self._arrays().items()
        }
        return replace(self, **chosen)
