"""Which codes a tokenizer uses, and how often."""

from __future__ import annotations

from typing import Any

import numpy as np
from typing_extensions import Self

from skmimood.exceptions import InputError
from skmimood.plotting.display import PANEL_INCHES, Display, label_axes, steps_of
from skmimood.tokens.tokenizer import VQTokenizer


class CodebookDisplay(Display):
    """Share of the tokens that each code has, from the most frequent to the least.

    A flat curve uses the codebook well; one that falls at once has collapsed.

    Parameters
    ----------
    counts : ndarray of shape (K,), int
        How often each code occurs.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    """

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = np.asarray(counts)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, *, ax: Any = None) -> Self:
        """Count the tokens of slices ``X`` (n, H, W).

        ``estimator`` is a fitted `VQTokenizer` or a pipeline that begins with one; else `InputError`.
        """
        _, tokenizer = next(iter(steps_of(estimator)))
        if not isinstance(tokenizer, VQTokenizer):
            raise InputError(
                f"The first step must be a VQTokenizer; got {type(tokenizer).__name__}. Pass tokens to "
                "CodebookDisplay.from_predictions."
            )
        return cls.from_predictions(tokenizer.transform(X).tokens, tokenizer.n_codes_, ax=ax)

    @classmethod
    def from_predictions(cls, tokens: np.ndarray, n_codes: int, *, ax: Any = None) -> Self:
        """Count tokens of any shape, integers below ``n_codes``."""
        return cls(np.bincount(np.ravel(tokens), minlength=n_codes)).plot(ax)

    @property
    def perplexity(self) -> float:
        """Return exp of the entropy of the codes' shares: the number of codes that are used as if equally often."""
        share = self.counts[self.counts > 0] / self.counts.sum()
        return float(np.exp(-(share * np.log(share)).sum()))

    def plot(self, ax: Any = None) -> Self:
        """Draw the shares, and the equal share of all codes as a line."""
        self.ax_ = self._lay_out(ax, 1, 1, PANEL_INCHES)[0, 0]
        n_codes = len(self.counts)
        share = np.sort(self.counts)[::-1] / max(self.counts.sum(), 1)
        self.ax_.fill_between(np.arange(n_codes), share, step="mid", alpha=0.6)
        self.ax_.axhline(1 / n_codes, color="0.4", ls="--", lw=1, label="equal shares")
        title = f"{np.count_nonzero(self.counts)} of {n_codes} codes, perplexity {self.perplexity:.0f}"
        label_axes(self.ax_, "codes, the most frequent first", "share of the tokens", title)
        self.ax_.set(xlim=(0, n_codes - 1), ylim=(0, None))
        self.ax_.legend(frameon=False)
        return self
