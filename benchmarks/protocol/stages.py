"""The one protocol of all methods: fit on healthy slices, choose on val, test once."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from sklearn.base import BaseEstimator
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from benchmarks.data.slices import SliceSet
from benchmarks.protocol.bootstrap import PatientCounts, count
from benchmarks.protocol.ledger import note, steps_of
from skmimood import TokenizedScans, metrics
from skmimood.model_selection import score_path, varies_restorations_alone
from skmimood.scans.mapping import top_mean

MAX_SELECTION_SLICES = 33
MIN_ALARM_AREA = 72.0  # mm2: 20 pixels of 1.9 mm
_TIMED_SLICES, _WARM_UP_SLICES, _UNCACHED_SLICES = 32, 4, 1
_TOKEN_RULE = "any"

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one method, trained with one seed, reached.

    Attributes
    ----------
    rows : list of dict
        Lines of the result table, without the columns that name the run.
    counts : dict of (slices, region) to PatientCounts
        Scores of the test set, for intervals and curves.
    run : dict
        What else is told of the run: seconds of fit, parameters chosen.
    """

    rows: list[Row]
    counts: dict[tuple[str, str], PatientCounts]
    run: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the outcome as one file, at once."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {"told": np.array(json.dumps({"rows": self.rows, "run": self.run}))}
        for (slices, region), one in self.counts.items():
            arrays |= one.arrays(f"{slices}/{region}/")
        temporary = path.with_name(f".{path.name}")
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        told = json.loads(arrays.pop("told").item())
        names = {tuple(name.split("/")[:2]) for name in arrays}
        counts = {(s, r): PatientCounts.from_arrays(arrays, f"{s}/{r}/") for s, r in sorted(names)}
        return cls(told["rows"], counts, told["run"])


def fit(
    estimator: BaseEstimator,
    images: np.ndarray,
    ledger: Path | None = None,
    patients: np.ndarray | None = None,
) -> float:
    """Fit on healthy slices, step by step, and return the seconds that the training of all its networks took.

    A network that comes from the cache took what the ``ledger``, a JSON file, says it took when it was trained. What
    a step holds out of its training is cut between ``patients``, shape (n,).
    """
    steps = steps_of(estimator)
    total, inputs = 0.0, images
    for i, step in enumerate(steps):
        apart = {"groups": patients} if has_fit_parameter(step, "groups") else {}
        start = time.perf_counter()
        step.fit(inputs, **apart)
        elapsed = time.perf_counter() - start
        total += note(ledger, step, elapsed) if hasattr(step, "state_") else elapsed
        if i < len(steps) - 1:
            inputs = step.transform(inputs)
    return total


def select(
    estimator: BaseEstimator,
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]],
    tumour: SliceSet,
    *,
    max_slices: int = MAX_SELECTION_SLICES,
) -> tuple[dict[str, Any], list[Row]]:
    """Choose inference parameters by the pixel AP on tumour slices of val, and set them.

    Parameters
    ----------
    estimator : fitted estimator
        Gets the best parameters set; the first of equals.
    grid : mapping, or sequence of mappings
        Candidates as `ParameterGrid` takes them; several mappings are chosen from one after the other.
    tumour : SliceSet
        Slices with lesions.
    max_slices : int, default=33
        Of more, this many evenly spread ones are scored.

    Returns
    -------
    chosen : dict
        The parameters.
    trials : list of dict
        ``parameters`` and ``ap`` of every candidate.
    """
    spread = np.linspace(0, len(tumour) - 1, min(len(tumour), max_slices)).astype(int)
    sample = tumour[spread]
    chosen: dict[str, Any] = {}
    trials: list[Row] = []
    for stage in [grid] if isinstance(grid, Mapping) else grid:
        candidates = list(ParameterGrid(stage))
        aps = _score_candidates(estimator, stage, sample) if len(candidates) > 1 else [None]
        tried = [
            {"parameters": chosen | parameters, "ap": ap}
            for parameters, ap in zip(candidates, aps, strict=True)
        ]
        chosen = max(tried, key=lambda trial: trial["ap"] or 0.0)["parameters"]
        estimator.set_params(**chosen)
        trials += tried
    return chosen, trials


def _score_candidates(
    estimator: BaseEstimator, stage: Mapping[str, Sequence[Any]], sample: SliceSet
) -> list[float]:
    """Return the pixel AP of every candidate of a grid; of lambda, T and R from one path, the same at less cost."""

    def ap(maps: np.ndarray) -> float:
        return metrics.average_precision(sample.lesions, maps)

    if varies_restorations_alone(estimator, stage):
        return score_path(estimator, sample.images, stage, ap)
    return [
        ap(estimator.set_params(**parameters).decision_function(sample.images))
        for parameters in ParameterGrid(stage)
    ]


def evaluate(estimator: BaseEstimator, slices: SliceSet) -> Outcome:
    """Fix thresholds on val, then test once.

    Parameters
    ----------
    estimator : fitted estimator
        With the chosen inference parameters.
    slices : SliceSet
        All of the data set.

    Returns
    -------
    Outcome
    """
    val, test = slices.tumour("val"), slices.evaluated("test")
    val_maps, maps = (np.asarray(estimator.decision_function(part.images)) for part in (val, test))
    thresholds = fix_thresholds(val_maps, val)
    seconds = seconds_per_32(estimator, test.images)
    rows = [
        *_of_split("val", pixel_rows(val_maps, val, thresholds), token_rows(estimator, val)),
        *_of_split("test", pixel_rows(maps, test, thresholds), token_rows(estimator, test)),
        *_of_split("test", image_rows(estimator, maps, test)),
    ]
    for row in rows:
        if row["split"] == "test" and row["level"] == "pixel":
            row["seconds_per_32"] = seconds
    return Outcome(rows, patient_counts(maps, test, thresholds))


def _of_split(split: str, *parts: list[Row]) -> Iterator[Row]:
    for rows in parts:
        yield from ({"split": split, **row} for row in rows)


def regions(slices: SliceSet) -> dict[str, np.ndarray | None]:
    """Return the pixels that are counted: ``"all"`` (None) and those of the interior or brain."""
    return {"all": None, slices.region_name: slices.region}


def strata(slices: SliceSet) -> dict[str, np.ndarray]:
    """Return which slices are pooled, each as a mask of shape (n,).

    ``"tumour"``, and ``"head"`` if there are others; thirds of the tumour slices by lesion area; the kinds of planted
    lesions.
    """
    tumour = slices.has_lesion
    chosen = {"tumour": tumour}
    if not tumour.all():
        chosen["head"] = np.ones(len(slices), bool)
    areas = slices.lesions.sum((1, 2))
    cuts = np.quantile(areas[tumour], [1 / 3, 2 / 3])
    for i, size in enumerate(("small", "medium", "large")):
        chosen[size] = tumour & (np.searchsorted(cuts, areas) == i)
    kinds = [kind for kind in np.unique(slices.kinds) if kind]
    chosen |= {kind: tumour & (slices.kinds == kind) for kind in kinds}
    return {name: mask for name, mask in chosen.items() if mask.any()}


def fix_thresholds(maps: np.ndarray, tumour: SliceSet) -> dict[str, float]:
    """Return for each region the threshold of the best Dice over tumour slices of val."""
    return {
        name: _quiet(metrics.best_dice, tumour.lesions, maps, where=where, return_threshold=True)[1]
        for name, where in regions(tumour).items()
    }


def pixel_rows(
    maps: np.ndarray, slices: SliceSet, thresholds: Mapping[str, float] | None = None
) -> list[Row]:
    """Compute the figures of maps (n, H, W) over pooled pixels, for all strata and both regions.

    Parameters
    ----------
    maps : ndarray of shape (n, H, W)
        Higher is more anomalous.
    slices : SliceSet
        The same slices.
    thresholds : mapping of region to float, optional
        Fixed on val; for Dice and false alarms.

    Returns
    -------
    list of dict
        With ``slices``, ``level``, ``region`` and the figures.
    """
    rows = []
    for name, chosen in strata(slices).items():
        part, part_maps = slices[chosen], maps[chosen]
        for region, where in regions(part).items():
            figures = _figures(part.lesions, part_maps, where)
            row: Row = {"slices": name, "level": "pixel", "region": region, **figures}
            if thresholds is not None:
                threshold = thresholds[region]
                row["dice_at_val_threshold"] = _quiet(
                    metrics.dice_at_threshold, part.lesions, part_maps, threshold, where=where
                )
                free = part.is_healthy
                if free.any():
                    inside = None if where is None else where[free]
                    alarms = false_alarms(part_maps[free], threshold, part.spacing, inside)
                    row["false_alarm_rate"] = float(alarms.mean())
            rows.append(row)
    return rows


def false_alarms(
    maps: np.ndarray, threshold: float, spacing: float, where: np.ndarray | None = None
) -> np.ndarray:
    """Tell which slices (n, H, W) have 72 mm2 of connected pixels above a threshold, corners included.

    ``spacing`` is the size of a pixel in mm; ``where`` says which pixels count.
    """
    called = maps > threshold if where is None else (maps > threshold) & where
    found = np.zeros(len(maps), bool)
    for i, one in enumerate(called):
        parts, _ = ndimage.label(one, np.ones((3, 3), int))
        found[i] = np.bincount(parts.ravel())[1:].max(initial=0) * spacing**2 >= MIN_ALARM_AREA
    return found


def token_scores(estimator: BaseEstimator, images: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Return the score of every token (n, h, w) and the pixels a side of one; None for a method without tokens."""
    if not isinstance(estimator, Pipeline) or len(estimator.steps) < 2:
        return None
    scans, last = estimator[:-1].transform(images), estimator[-1]
    if not isinstance(scans, TokenizedScans):
        return None
    scores = last.token_scores(scans) if hasattr(last, "token_scores") else scans.anomaly
    return None if scores is None else (scores, scans.tokenizer.downsampling)


def token_rows(estimator: BaseEstimator, slices: SliceSet) -> list[Row]:
    """Compute AP and AUROC of token scores: a token is a lesion if any of its pixels is."""
    scored = token_scores(estimator, slices.images)
    if scored is None:
        return []
    scores, factor = scored
    labels = metrics.token_labels(slices.lesions, factor, rule=_TOKEN_RULE)
    rows = []
    for name in ("tumour", "head"):
        chosen = strata(slices).get(name)
        if chosen is not None:
            figures = _figures(labels[chosen], scores[chosen], None)
            rows.append({"slices": name, "level": "token", "region": "all", **figures})
    return rows


def image_rows(estimator: BaseEstimator, maps: np.ndarray, slices: SliceSet) -> list[Row]:
    """Compute AP and AUROC of slices with against slices without lesion.

    The score of a slice is the mean of the highest 1 % of its map; a method that scores slices itself
    (``score_samples``) gets a second row, region "classifier".
    """
    labels = slices.has_lesion
    scores = {"all": np.array([top_mean(one) for one in maps])}
    if hasattr(estimator, "score_samples") and not isinstance(estimator, Pipeline):
        scores["classifier"] = np.asarray(estimator.score_samples(slices.images))
    if labels.all():
        return []
    return [
        {"slices": "head", "level": "image", "region": region, "ap": metrics.average_precision(labels, values),
         "auroc": metrics.auroc(labels, values)}
        for region, values in scores.items()
    ]  # fmt: skip


def patient_counts(
    maps: np.ndarray, slices: SliceSet, thresholds: Mapping[str, float]
) -> dict[tuple[str, str], PatientCounts]:
    """Count the scores of tumour and of head slices, patient by patient, in both regions."""
    counts = {}
    for name, chosen in strata(slices).items():
        if name not in ("tumour", "head"):
            continue
        part, part_maps = slices[chosen], maps[chosen]
        for region, where in regions(part).items():
            threshold = thresholds[region]
            counts[name, region] = count(
                part.lesions, part_maps, part.patients, threshold,
                where=where, alarms=false_alarms(part_maps, threshold, part.spacing, where),
            )  # fmt: skip
    return counts


def seconds_per_32(estimator: BaseEstimator, images: np.ndarray) -> float:
    """Time the maps of 32 slices, after a warm-up; fewer are timed where there are fewer."""
    return _time(estimator, images[:_TIMED_SLICES])


def seconds_per_32_uncached(estimator: BaseEstimator, images: np.ndarray) -> float | None:
    """Time one slice without the key-value cache, the paper's way, times 32; None for methods without one."""
    names = [name for name in estimator.get_params() if name.endswith("key_value_cache")]
    if not names:
        return None
    estimator.set_params(**dict.fromkeys(names, False))
    seconds = _time(estimator, images[:_UNCACHED_SLICES], warm_up=False)
    estimator.set_params(**dict.fromkeys(names, True))
    return seconds


def _time(estimator: BaseEstimator, images: np.ndarray, *, warm_up: bool = True) -> float:
    if warm_up:
        estimator.decision_function(images[:_WARM_UP_SLICES])
    start = time.perf_counter()
    estimator.decision_function(images)
    return (time.perf_counter() - start) * _TIMED_SLICES / len(images)


def _figures(labels: np.ndarray, scores: np.ndarray, where: np.ndarray | None) -> dict[str, float]:
    return {
        name: _quiet(metric, labels, scores, where=where)
        for name, metric in (
            ("best_dice", metrics.best_dice), ("ap", metrics.average_precision), ("auroc", metrics.auroc),
        )
    }  # fmt: skip


def _quiet(metric: Any, *arguments: Any, **options: Any) -> Any:
    """Compute a metric; where it is undefined, as in a stratum without lesions in the region, it is NaN."""
    from sklearn.exceptions import UndefinedMetricWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return metric(*arguments, **options)
