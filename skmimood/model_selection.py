"""Choosing lambda, T and R: all their maps from one run a lambda, and a grid search over them."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from traceback import format_exc
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv, cross_validate
from sklearn.pipeline import Pipeline

from skmimood.exceptions import InputError
from skmimood.metrics import pixel_average_precision_scorer
from skmimood.tokens.base import BaseTokenDetector
from skmimood.tokens.inpainter import MaskedTokenInpainter

Grid = Mapping[str, Sequence[Any]]


def restoration_path(
    estimator: Pipeline,
    X: Any,
    *,
    thresholds: Iterable[float] | None = None,
    n_steps: Iterable[int] | None = None,
    n_restorations: Iterable[int] | None = None,
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Compute the maps of every combination of lambda, T and R, from one run a lambda at the largest T and R.

    Fewer steps or restorations are the beginning of a longer run, since each restoration has a random stream of its
    own. So the maps are, up to rounding, those of `decision_function` with these parameters, at a fraction of the cost.
    The maps of one lambda are in memory together.

    Parameters
    ----------
    estimator : Pipeline
        Fitted; its last steps are a token detector (`AnomalousTokenDetector`, `TokenLikelihoodDetector`,
        `TokenCritic`) and `MaskedTokenInpainter`. It is not changed.
    X : array-like of shape (n, H, W)
        Slices. They are tokenised and scored once.
    thresholds : iterable of float, optional
        Values of lambda, the detector's ``threshold``; by default only the estimator's own.
    n_steps, n_restorations : iterable of int, optional
        Values of T and of R; by default only the estimator's own.

    Yields
    ------
    parameters : dict
        As ``estimator.set_params`` takes them, for instance ``{"detector__threshold": 0.01, "inpainter__n_steps": 2,
        "inpainter__n_restorations": 4}``. The thresholds come in the given order, for each the T, for each the R.
    maps : ndarray of shape (n, H, W), float32

    Raises
    ------
    InputError
        If the estimator is another, or a value is out of range.

    Examples
    --------
    >>> from skmimood import make_mimood_pipeline, restoration_path
    >>> pipeline = make_mimood_pipeline()
    >>> path = restoration_path(pipeline, None, thresholds=[0.01, 0.1], n_steps=[1, 2])  # computed as it is read
    """
    given = dict(zip(_path_names(estimator), (thresholds, n_steps, n_restorations), strict=True))
    current = estimator.get_params()
    grid = {name: [current[name]] if values is None else list(values) for name, values in given.items()}
    _check_grid(estimator, grid)
    return _walk(estimator, X, grid)


def _walk(estimator: Pipeline, X: Any, grid: Grid) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    thresholds, n_steps, n_restorations = grid.values()
    scans = estimator[:-1].transform(X)
    for threshold in thresholds:
        maps = estimator[-1].path(
            scans, threshold=threshold, n_steps=n_steps, n_restorations=n_restorations
        )  # (T, R, n, H, W)
        for (i, steps), (j, restorations) in itertools.product(enumerate(n_steps), enumerate(n_restorations)):
            yield dict(zip(grid, (threshold, steps, restorations), strict=True)), maps[i, j]


def score_path(estimator: Pipeline, X: Any, grid: Grid, score: Callable[[np.ndarray], Any]) -> list[Any]:
    """Return ``score(maps (n, H, W))`` of every candidate of a grid over lambda, T and R, as named in the pipeline.

    The scores are in the order of `ParameterGrid`. Another parameter or a value out of range raises `InputError`.
    """
    _check_grid(estimator, grid)
    thresholds, n_steps, n_restorations = map(grid.get, _path_names(estimator))
    path = restoration_path(
        estimator, X, thresholds=thresholds, n_steps=n_steps, n_restorations=n_restorations
    )
    scored = [({name: parameters[name] for name in grid}, score(maps)) for parameters, maps in path]
    return [
        next(value for parameters, value in scored if parameters == candidate)
        for candidate in ParameterGrid(grid)
    ]


def varies_restorations_alone(estimator: Any, grid: Grid) -> bool:
    """Return whether `score_path` takes such an estimator and grid."""
    try:
        return set(grid) <= set(_path_names(estimator))
    except InputError:
        return False


class RestorationSearchCV(GridSearchCV):
    """`GridSearchCV` over lambda, T and R that fits once a fold and scores all candidates of a fold by one path.

    Parameters, methods, attributes, ``cv_results_``, scores and choice are those of
    `sklearn.model_selection.GridSearchCV`; the time is a fraction (see `restoration_path`). What differs:

    - the keys of ``param_grid`` are the ``threshold`` of the detector, and ``n_steps`` and ``n_restorations`` of the
      in-painter;
    - ``scoring`` is None (pixel average precision) or a callable that returns a number from ``decision_function`` of
      all slices of a fold, as those of `skmimood.metrics` do; masks are no use, since each candidate's own fit
      calibrates their threshold;
    - all candidates of a fold have the time of their one fit, and an equal share of the time of its path;
    - where the path or a scorer fails, all candidates of that fold and grid get ``error_score``.

    Parameters
    ----------
    estimator : Pipeline
        Its last steps are a token detector and `MaskedTokenInpainter`.
    param_grid : dict of str to sequence, or list of such
        For instance ``{"detector__threshold": [0.01, 0.1], "inpainter__n_steps": [2, 4, 8]}``.
    scoring : callable or None, default=None
        ``scoring(estimator, X, y) -> float``.
    n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score
        As in `GridSearchCV`; ``n_jobs`` counts folds.

    Attributes
    ----------
    cv_results_, best_estimator_, best_params_, best_score_, best_index_, n_splits_, scorer_, refit_time_, multimetric_
        As in `GridSearchCV`.

    Examples
    --------
    >>> from skmimood import RestorationSearchCV, make_mimood_pipeline
    >>> grid = {"detector__threshold": [0.01, 0.1], "inpainter__n_steps": [2, 4, 8]}
    >>> search = RestorationSearchCV(make_mimood_pipeline(), grid)
    """

    def fit(self, X: Any, y: Any = None, *, groups: Any = None, **params: Any) -> RestorationSearchCV:
        """Fit each fold once, score all candidates on it, and refit the best one on all samples.

        Parameters
        ----------
        X : array-like of shape (n, H, W)
            Slices.
        y : array-like of shape (n, H, W)
            Lesion masks; no fit learns from a sample whose mask is not empty.
        groups : array-like of shape (n,), optional
            For the splitter.
        **params
            Of the estimator's ``fit``.

        Returns
        -------
        RestorationSearchCV

        Raises
        ------
        InputError
            If ``param_grid`` has another parameter or a value out of range, or ``scoring`` is of another kind.
        """
        grids = ParameterGrid(self.param_grid).param_grid  # always a list
        for grid in grids:
            _check_grid(self.estimator, grid)
        if self.scoring is not None and not callable(self.scoring):
            raise InputError(
                f"scoring must be None or a callable scorer, as in skmimood.metrics; got {self.scoring!r}. "
                "GridSearchCV takes names and several metrics."
            )
        self.multimetric_, self.scorer_ = False, check_scoring(self.estimator, self.scoring)
        cv = check_cv(self.cv, y)
        self.n_splits_ = cv.get_n_splits(X, y, groups)
        scores = cross_validate(
            self.estimator, X, y, groups=groups, scoring=_PathScorer(grids, self.scorer_, self.error_score), cv=cv,
            n_jobs=self.n_jobs, verbose=self.verbose, pre_dispatch=self.pre_dispatch, params=params,
            error_score=self.error_score, return_train_score=self.return_train_score,
        )  # fmt: skip
        self.cv_results_ = self._results(list(ParameterGrid(grids)), scores)
        self.best_index_ = self._select_best_index(self.refit, "score", self.cv_results_)
        self.best_params_ = self.cv_results_["params"][self.best_index_]
        if not callable(self.refit):
            self.best_score_ = self.cv_results_["mean_test_score"][self.best_index_]
        if self.refit:
            start = time.time()
            self.best_estimator_ = clone(self.estimator).set_params(**self.best_params_).fit(X, y, **params)
            self.refit_time_ = time.time() - start
        return self

    def _results(self, candidates: list[dict[str, Any]], scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return ``cv_results_`` from the times (n_splits,) and the scores of each candidate (n_splits,)."""
        kinds = ["test", "train"] if self.return_train_score else ["test"]
        out = [
            {
                "fit_time": scores["fit_time"][fold],
                "score_time": scores["score_time"][fold] / len(candidates),
                **{f"{kind}_scores": scores[f"{kind}_{candidate}"][fold] for kind in kinds},
            }
            for candidate, fold in itertools.product(range(len(candidates)), range(self.n_splits_))
        ]
        return self._format_results(candidates, self.n_splits_, out)


@dataclass(frozen=True)
class _PathScorer:
    """Scores all candidates of the grids on one fold: ``{"0": score, "1": ...}``."""

    grids: list[Grid]
    scorer: Callable[..., float]
    error_score: Any

    def __call__(self, estimator: Pipeline, X: Any, y: Any = None) -> dict[str, float]:
        scores = [score for grid in self.grids for score in self._scores(estimator, X, y, grid)]
        return {str(candidate): score for candidate, score in enumerate(scores)}

    def _scores(self, estimator: Pipeline, X: Any, y: Any, grid: Grid) -> list[float]:
        try:
            return score_path(estimator, X, grid, lambda maps: self.scorer(_KnownMaps(X, maps), X, y))
        except Exception:
            if isinstance(self.error_score, str):  # "raise"
                raise
            warnings.warn(
                f"Scoring failed. The scores of {grid} on this fold are set to {self.error_score}. Details:\n"
                f"{format_exc()}",
                UserWarning, stacklevel=2,
            )  # fmt: skip
            return [self.error_score] * len(ParameterGrid(grid))


class _KnownMaps(BaseEstimator):
    """A fitted estimator, as a scorer sees it, with the maps of ``X``."""

    def __init__(self, X: Any, maps: np.ndarray) -> None:
        self.X = X
        self.maps = maps

    def decision_function(self, X: Any) -> np.ndarray:
        if X is not self.X:
            raise InputError(
                "RestorationSearchCV has only the maps of the whole fold, and the scorer asks for other slices. Let it "
                "choose from their maps, or use GridSearchCV."
            )
        return self.maps

    def score(self, X: Any, y: Any) -> float:
        return pixel_average_precision_scorer(self, X, y)


def _path_names(estimator: Any) -> tuple[str, str, str]:
    """Return the names of lambda, T and R in the pipeline."""
    steps = estimator.steps[-2:] if isinstance(estimator, Pipeline) else []
    kinds = (BaseTokenDetector, MaskedTokenInpainter)
    if len(steps) < 2 or not all(
        isinstance(step, kind) for (_, step), kind in zip(steps, kinds, strict=True)
    ):
        raise InputError(
            "estimator must be a Pipeline that ends in a token detector and a MaskedTokenInpainter, as "
            f"make_mimood_pipeline builds it; got {estimator!r}. GridSearchCV takes any estimator."
        )
    (detector, _), (inpainter, _) = steps
    return f"{detector}__threshold", f"{inpainter}__n_steps", f"{inpainter}__n_restorations"


def _check_grid(estimator: Any, grid: Grid) -> None:
    """Raise `InputError` if a grid has other parameters than lambda, T and R, a value out of range, or no value."""
    names = _path_names(estimator)
    others = sorted(grid.keys() - set(names))
    if others:
        raise InputError(
            f"A path varies {', '.join(names)} and nothing else; got {', '.join(others)}. Use GridSearchCV "
            "for other parameters."
        )
    trial = clone(estimator)
    for name, values in grid.items():
        if not len(values):
            raise InputError(f"{name} has no values; pass at least one.")
        for value in values:
            trial.set_params(**{name: value})
            for _, step in trial.steps[-2:]:
                step._check_parameters()
