"""Compare the results of a folder with lesion masks, scan by scan and in all."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skmimood.exceptions import InputError, ScanReadError, listing, warn
from skmimood.jobs.description import counted
from skmimood.jobs.files import make_folder, printable, to_csv, write
from skmimood.jobs.results import EVALUATION, ScanOutcome, StatusTable
from skmimood.maps.conformal import ScoreHistogram, average_precision_of_counts
from skmimood.metrics import (
    LesionDetection,
    auroc,
    average_precision,
    best_dice,
    dice_at_threshold,
    false_positive_rate,
    lesion_detection,
)
from skmimood.nifti import Source, find_scans, read_labels, read_scan
from skmimood.runtime.paths import expand
from skmimood.scans.results import written_paths
from skmimood.scans.sources import NEVER_LESIONS, masks_by_name

ALL = "all"
"""What the last line of the table is called."""

_TITLES = {
    "n_lesions": "lesions", "n_detected": "detected", "n_false_positives": "false", "dice": "Dice",
    "best_dice": "best Dice", "average_precision": "AP", "auroc": "AUROC", "false_positive_rate": "FPR",
    "is_anomalous": "anomalous",
}  # fmt: skip


@dataclass(frozen=True)
class Accuracy:
    """How well the results of a scan, or of all, agree with the lesion mask: a line of ``evaluation.csv``.

    Attributes
    ----------
    id : str
        The scan, or "all": of all voxels, lesions and scans together.
    n_lesions, n_detected : int
        Connected lesions, and those of which the mask covers a tenth at least.
    n_false_positives : int
        Connected parts of the mask that touch no lesion.
    dice : float
        Dice coefficient of the mask; nan without lesions, as the next three.
    best_dice, average_precision, auroc : float
        Of the map; see :mod:`skmimood.metrics`. All voxels of the scan count but those without a value.
    false_positive_rate : float
        Share of the healthy voxels that the mask marks.
    score : float
        Of the scan; nan in "all".
    is_anomalous : bool or None
        The verdict; None if there was none, and in "all".
    """

    id: str
    n_lesions: int
    n_detected: int
    n_false_positives: int
    dice: float
    best_dice: float
    average_precision: float
    auroc: float
    false_positive_rate: float
    score: float = math.nan
    is_anomalous: bool | None = None


def evaluate_results(
    results: str | os.PathLike,
    masks: Sequence[str | os.PathLike],
    *,
    suffix: str | None = None,
    unmasked_healthy: bool = False,
    table: str | os.PathLike | None = None,
    say: Callable[[str], None] = print,
) -> Evaluation:
    """Compare what ``skmimood score`` has written into a folder with lesion masks.

    Parameters
    ----------
    results : path
        Folder of the results.
    masks : list of folder, glob or path
        Lesion masks. They belong to the scans of the same name, or of the same name up to its last part; see
        `ScanDetector.score`.
    suffix : str, optional
        Only files whose names end in this are masks, and the name is what comes before it.
    unmasked_healthy : bool, default=False
        Scans without a mask are healthy. By default they are left out, with a warning.
    table : path, optional
        Where the table is written; by default ``evaluation.csv`` in the folder of the results.
    say : callable
        Receives lines of text for the user.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If the folder holds no results, or none of its scans has a mask.
    """
    folder = expand(results)
    outcomes = {one.id: one for one in StatusTable.read(folder).outcomes if one.status == "ok"}
    if not outcomes:
        raise InputError(f"{str(folder)!r} holds no results of skmimood score. Pass the folder it wrote to.")
    found = find_scans(list(masks), suffix=suffix, exclude=NEVER_LESIONS)
    paired = dict(zip(outcomes, masks_by_name(found, list(outcomes), suffix=suffix), strict=True))
    bare = [scan for scan, mask in paired.items() if mask is None]
    if len(bare) == len(paired):
        raise InputError(
            f"No mask is named like one of the scans, such as {bare[0]!r}. Pass their folder, and the ending of "
            "their names if they lie among other files."
        )
    if bare and not unmasked_healthy:
        warn(f"Left out, as they have no mask: {listing(bare)}. Say so if they are healthy.")
        paired = {scan: mask for scan, mask in paired.items() if mask is not None}
    lines, failed, pooled = [], {}, _Pooled()
    say(_row([_TITLES.get(field.name, field.name) for field in fields(Accuracy)]))
    for scan, mask in paired.items():
        try:
            lines.append(_compare(outcomes[scan], mask, folder, pooled))
        except ScanReadError as error:
            failed[scan] = error.reason
            warn(f"{scan} is left out. {error}")
        else:
            say(_row(astuple(lines[-1])))
    if not lines:
        raise InputError("No scan could be compared with its mask. Look at the warnings.")
    verdicts = _verdicts(lines)
    lines.append(pooled.line())
    say(_row(astuple(lines[-1])))
    for sentence in verdicts:
        say(sentence)
    path = folder / EVALUATION if table is None else expand(table)
    make_folder(path.parent)
    write(path, to_csv([field.name for field in fields(Accuracy)], map(astuple, lines)))
    say(f"The table is in {str(path)!r}.")
    return Evaluation(lines, failed)


class Evaluation(NamedTuple):
    """Lines of the scans and one of all together, and the scans that could not be compared, with the reasons."""

    lines: list[Accuracy]
    failed: dict[str, str]


class _Pooled:
    """The voxels and lesions of all scans so far, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self._diseased, self._healthy = ScoreHistogram(), ScoreHistogram()
        # Voxels that are healthy, healthy and marked, diseased, diseased and marked.
        self._marked = np.zeros(4, dtype=np.int64)
        self._found = np.zeros(3, dtype=np.int64)

    def add(self, labels: np.ndarray, scores: np.ndarray, marks: np.ndarray, found: LesionDetection) -> None:
        """Count the voxels (n,) of a scan, and its lesions."""
        self._diseased.add(scores[labels])
        self._healthy.add(scores[~labels])
        self._marked += np.bincount(2 * labels + marks, minlength=4)
        self._found += [found.n_lesions, found.n_detected, found.n_false_positives]

    def line(self) -> Accuracy:
        """Return the metrics of all voxels together; scores closer than 0.05 % may be tied, as in `ScoreHistogram`."""
        spared, alarms, missed, hits = map(int, self._marked)
        n_diseased, n_healthy = missed + hits, spared + alarms
        best = precision = ranked = math.nan
        if n_diseased and n_healthy:
            above = np.cumsum(self._diseased.counts[::-1])  # diseased voxels that score as high or higher
            called = above + np.cumsum(self._healthy.counts[::-1])
            best = float((2 * above / (called + n_diseased)).max())
            precision = average_precision_of_counts(self._diseased, self._healthy)
            higher = above - self._diseased.counts[::-1] / 2  # equal ones count half
            ranked = float(higher @ self._healthy.counts[::-1]) / (n_diseased * n_healthy)
        n_lesions, n_detected, n_false = map(int, self._found)
        dice = 2 * hits / (2 * hits + missed + alarms) if n_diseased else math.nan
        rate = alarms / n_healthy if n_healthy else math.nan
        return Accuracy(ALL, n_lesions, n_detected, n_false, dice, best, precision, ranked, rate)


def _compare(outcome: ScanOutcome, mask: Source | None, folder: Path, pooled: _Pooled) -> Accuracy:
    """Compare a scan with its mask, None if it is healthy, and count its voxels in ``pooled`` too."""
    if (paths := written_paths(folder, outcome.id)) is None:
        raise ScanReadError(outcome.id, "some of its results are gone. Score it again.")
    anomaly, marks = read_scan(paths[0], max_invalid=1.0), read_scan(paths[2]).data > 0
    truth = np.zeros(marks.shape, dtype=bool) if mask is None else read_labels(mask, anomaly)
    found = lesion_detection(truth[np.newaxis], marks[np.newaxis])
    valid = np.ones(marks.shape, dtype=bool) if anomaly.invalid is None else ~anomaly.invalid
    labels, scores, marks = truth[valid], anomaly.data[valid], marks[valid]
    pooled.add(labels, scores, marks, found)
    is_mixed = labels.any() and not labels.all()
    best, precision, ranked = (
        float(metric(labels, scores)) if is_mixed else math.nan
        for metric in (best_dice, average_precision, auroc)
    )
    return Accuracy(
        id=outcome.id,
        n_lesions=found.n_lesions,
        n_detected=found.n_detected,
        n_false_positives=found.n_false_positives,
        dice=dice_at_threshold(labels, marks, 0.5) if labels.any() else math.nan,
        best_dice=best,
        average_precision=precision,
        auroc=ranked,
        false_positive_rate=math.nan if labels.all() else false_positive_rate(labels, marks, 0.5),
        score=math.nan if outcome.score is None else outcome.score,
        is_anomalous=outcome.is_anomalous,
    )


def _verdicts(lines: Sequence[Accuracy]) -> list[str]:
    """Say how well the scores and verdicts tell scans with lesions from scans without."""
    has_lesion = np.asarray([line.n_lesions > 0 for line in lines])
    sentences = []
    for kind, of_kind in (("with lesions", has_lesion), ("without", ~has_lesion)):
        judged = [line.is_anomalous for line, is_it in zip(lines, of_kind, strict=True) if is_it]
        told = [verdict for verdict in judged if verdict is not None]
        called = f": {sum(told)} of {len(told)} called anomalous" if told else ""
        sentences.append(f"{counted(len(judged), 'scan')} {kind}{called}.")
    if has_lesion.any() and not has_lesion.all():
        ranked = auroc(has_lesion, np.asarray([line.score for line in lines]))
        sentences.append(f"AUROC of the scans by their scores: {ranked:.3f}.")
    return sentences


def _row(cells: Sequence[object]) -> str:
    """Return a line of the printed table, the name last since it may be long."""
    name, *others = map(_shown, cells)
    return "".join(f"{cell:>10}" for cell in others) + f"  {printable(name)}"


def _shown(cell: object) -> str:
    if isinstance(cell, bool) or cell is None:
        return {True: "yes", False: "no", None: "-"}[cell]
    if isinstance(cell, float):
        return "-" if math.isnan(cell) else f"{cell:.3g}"
    return str(cell)
