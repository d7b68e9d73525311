"""
Writing your own detector step
==============================

A detector scores tokens. Anything that does so can stand between tokenizer and in-painter: it needs no network, no
registration, and no base class of this package.
"""

# %%
# The idea
# --------
#
# The simplest detector: a token is anomalous if its code is rare *at this place* in healthy slices. Its score is
# the negative logarithm of how often the code was there.
#
# The contract
# ------------
#
# ``fit`` and ``transform`` take :class:`~skmimood.TokenizedScans`, which is what the tokenizer returns: ``images``,
# ``tokens`` and the fitted tokenizer. ``transform`` adds ``anomaly``, the score of each token, and the detector
# itself, as the in-painter asks it again after each of its T steps. For that it needs ``threshold`` (lambda) and
# ``score_tensor``, which scores torch tensors.

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline

from skmimood import make_mimood_pipeline
from skmimood.datasets import make_brain_phantom
from skmimood.metrics import average_precision
from skmimood.plotting import RestorationDisplay


class RareTokens(TransformerMixin, BaseEstimator):
    """Score of a token: -log of the share of healthy slices that have its code there, in nats."""

    leaves_out_background = False

    def __init__(self, threshold=4.0, prior=0.5):
        self.threshold = threshold
        self.prior = prior  # how often a code counts as seen everywhere

    def fit(self, X, y=None):
        healthy = X.tokens if y is None else X.tokens[~np.asarray(y).reshape(len(X), -1).any(axis=1)]
        n_codes = X.tokenizer.n_codes_
        counts = (healthy[..., np.newaxis] == np.arange(n_codes)).sum(axis=0) + self.prior  # (h, w, K)
        self.surprise_ = -np.log(counts / counts.sum(axis=-1, keepdims=True)).astype(np.float32)
        return self

    def score_tensor(self, tokens):  # (n, h, w) -> (n, h, w)
        surprise = torch.from_numpy(self.surprise_).to(tokens.device)
        return surprise.expand(len(tokens), -1, -1, -1).gather(-1, tokens[..., None])[..., 0]

    def transform(self, X):
        return replace(X, anomaly=self.score_tensor(torch.from_numpy(X.tokens)).numpy(), detector=self)


# %%
# In a pipeline
# -------------
#
# The tokenizer and the in-painter are those of the preset.

healthy, _ = make_brain_phantom(100, size=32, random_state=0)
scans, lesions = make_brain_phantom(10, size=32, lesions=True, random_state=1)
mimood = make_mimood_pipeline("toy", random_state=0)

pipe = make_pipeline(mimood["tokenizer"], RareTokens(), mimood["inpainter"]).fit(healthy)
print(f"AP {average_precision(lesions, pipe.decision_function(scans)):.3f}")

_, ax = plt.subplots(figsize=(10, 3.8), layout="constrained")
RestorationDisplay.from_estimator(pipe, scans[:3], lesions[:3], n_restorations=1, ax=ax)
plt.show()

# %%
# scikit-learn's tools work with it as with any step.

slices, masks = np.concatenate([healthy, scans]), np.concatenate([np.zeros_like(healthy, bool), lesions])
fold = np.repeat([-1, 0], [len(healthy), len(scans)])
search = GridSearchCV(pipe, {"raretokens__threshold": [3.0, 4.0, 5.0]}, cv=PredefinedSplit(fold), refit=False)
search.fit(slices, masks)
for parameters, score in zip(
    search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
):
    print(f"{score:.3f}", parameters)

# %%
# A method for others
# -------------------
#
# To make it part of the package, with checked parameters, saving, the common tests and the benchmarks, see
# :doc:`/architecture`: one file and one line.
