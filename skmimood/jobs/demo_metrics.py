"""How well maps of artificial scans agree with the known lesions, beside a plain intensity threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skmimood.jobs.outcomes import StatusTable
from skmimood.nifti import read_labels, read_scan, scan_id

if TYPE_CHECKING:
    from skmimood.datasets import PhantomDataset

METHODS = ("skmimood", "intensity")
"""What is compared: the anomaly map, and the scan's own intensity (the brighter, the more anomalous)."""

_TOP_SHARE = 0.01  # of a scan's pixels: their mean is its score


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The brain pixels of one or several scans: truth, and the scores of each method, all (n_pixels,)."""

    lesion: np.ndarray
    scores: dict[str, np.ndarray]

    @classmethod
    def pooled(cls, scans: Sequence[_Pixels]) -> _Pixels:
        return cls(
            np.concatenate([scan.lesion for scan in scans]),
            {method: np.concatenate([scan.scores[method] for scan in scans]) for method in METHODS},
        )


def evaluate_phantoms(cohort: PhantomDataset, healthy: Sequence[Path], table: StatusTable) -> dict[str, Any]:
    """Compare maps, and plain intensities, with the known lesions.

    Parameters
    ----------
    cohort : PhantomDataset
        Its scans with lesions were scored; the kinds of lesions take turns.
    healthy : sequence of path
        Healthy scans that were scored too; may be empty.
    table : StatusTable
        Tells where the maps are.

    Returns
    -------
    dict
        Numbers of pixels and scans, and the metrics of each of `METHODS` on the same pixels.
    """
    from skmimood.datasets import LESION_KINDS
    from skmimood.metrics import auroc

    patients = [_read(*pair, table) for pair in zip(cohort.scans, cohort.masks, strict=True)]
    scans = [*patients, *(_read(path, None, table) for path in healthy)]
    pooled = _Pixels.pooled(patients)
    by_kind = {
        kind: _Pixels.pooled(patients[first :: len(LESION_KINDS)])
        for first, kind in enumerate(LESION_KINDS[: len(patients)])
    }
    results: dict[str, Any] = {
        "n_pixels": pooled.lesion.size,
        "base_rate": float(pooled.lesion.mean()),
        "n_patients": len(patients),
        "n_healthy_scans": len(healthy),
    }
    for method in METHODS:
        results[method] = _pixel_metrics(pooled.lesion, pooled.scores[method])
        results[method]["auroc_by_lesion"] = {
            kind: auroc(pixels.lesion, pixels.scores[method]) for kind, pixels in by_kind.items()
        }
        if healthy:
            is_patient = np.arange(len(scans)) < len(patients)
            results[method]["scan_auroc"] = auroc(
                is_patient, np.asarray([_top_mean(scan.scores[method]) for scan in scans])
            )
    return results


def metrics_table(metrics: Mapping[str, Any]) -> list[str]:
    """Return what `evaluate_phantoms` found as lines of text, one column a method."""
    rows = {
        "pixel AUROC": ("auroc", ".3f"),
        "pixel average precision (AP)": ("average_precision", ".3f"),
        "AP over the base rate": ("ap_ratio", ".1f"),
        "best Dice": ("best_dice", ".3f"),
    }
    if metrics["n_healthy_scans"]:
        rows["scan AUROC"] = ("scan_auroc", ".3f")
    lines = [_row("", METHODS)]
    for name, (key, digits) in rows.items():
        lines.append(_row(name, [format(metrics[method][key], digits) for method in METHODS]))
    for kind in metrics[METHODS[0]]["auroc_by_lesion"]:
        values = [f"{metrics[method]['auroc_by_lesion'][kind]:.3f}" for method in METHODS]
        lines.append(_row(f"  pixel AUROC, {kind}", values))
    lines += [
        f"Both columns: the same {metrics['n_pixels']:,} brain pixels of {metrics['n_patients']} scans with "
        f"lesions, {metrics['base_rate']:.2%} of",
        "them lesion. Intensity is the scan itself: the brighter, the more anomalous.",
    ]
    return lines


def _row(name: str, values: Sequence[str]) -> str:
    return f"{name:<30}" + "".join(f"{value:>11}" for value in values)


def _read(path: Path, mask: Path | None, table: StatusTable) -> _Pixels:
    """Read the brain pixels of a scan; which pixels those are does not depend on any method."""
    from scipy.ndimage import binary_fill_holes

    scan = read_scan(path)
    lesion = np.zeros(scan.data.shape, dtype=bool) if mask is None else read_labels(mask, scan)
    # The background of these scans is exactly 0, and so may be the core of a dark lesion.
    brain = lesion | np.stack([binary_fill_holes(plane) for plane in (scan.data > 0).T]).T
    anomaly = read_scan(table.images(scan_id(path))[0]).data
    # Scans differ in gain: without scaling, pooled intensities would rank scans, not pixels.
    bright = float(np.percentile(scan.data[brain], 98))
    return _Pixels(lesion[brain], {"skmimood": anomaly[brain], "intensity": scan.data[brain] / bright})


def _pixel_metrics(lesion: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    from skmimood.metrics import auroc, average_precision, best_dice

    precision = average_precision(lesion, scores)
    return {
        "auroc": auroc(lesion, scores),
        "average_precision": precision,
        "ap_ratio": precision / float(lesion.mean()),
        "best_dice": best_dice(lesion, scores),
    }


def _top_mean(values: np.ndarray) -> float:
    n_top = max(1, round(_TOP_SHARE * values.size))
    return float(np.partition(values, -n_top)[-n_top:].mean())
