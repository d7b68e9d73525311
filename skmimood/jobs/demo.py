"""The whole main job on artificial brains: make scans, fit, score, compare with the truth, report."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skmimood.exceptions import InputError
from skmimood.jobs.description import minutes
from skmimood.jobs.files import make_folder, to_json, write
from skmimood.jobs.fitting import FitJob, fit_model
from skmimood.jobs.locks import claimed
from skmimood.jobs.report import can_report
from skmimood.jobs.scoring import ScoreJob, score_scans
from skmimood.metrics import auroc, average_precision, best_dice
from skmimood.nifti import read_labels, read_scan, scan_id
from skmimood.plotting import ColourScale, SliceDisplay
from skmimood.runtime.device import resolve_device
from skmimood.runtime.paths import expand
from skmimood.scans.mapping import top_mean
from skmimood.scans.results import Gallery, result_paths
from skmimood.scans.sources import ListedScan

if TYPE_CHECKING:
    from skmimood.datasets import PhantomDataset
    from skmimood.scans import ScanDetector

Say = Callable[[str], None]

_CREATED = ("scans", "model", "results", "metrics.json", "overview.png")
_LOCK = ".demo.lock"
_SETTINGS = "demo.json"  # also the sign that a folder is a demo's, and may be overwritten

# What is compared: the anomaly map, and the scan's own intensity (the brighter, the more anomalous).
_METHODS = ("skmimood", "intensity")
_ROWS = {
    "AUROC": ("auroc", ".3f"),
    "average precision (AP)": ("average_precision", ".3f"),
    "AP over the base rate": ("ap_ratio", ".1f"),
    "best Dice": ("best_dice", ".3f"),
}

# Of each pixel of a scan or of several: "lesion" and "brain", bool, and the score of each method, all (n_pixels,).
_Pixels = dict[str, np.ndarray]


@dataclass(frozen=True)
class DemoSettings:
    """The sizes of the demo; it takes 6 to 15 minutes on two CPU cores, by how fast they are."""

    n_fit: int = 40  # healthy scans to fit on, calibration included
    n_healthy: int = 8  # healthy scans to score
    n_patients: int = 10  # scans with lesions to score; the kinds of lesions take turns
    image_size: int = 64  # pixels along each side of a slice, of the scans and of the networks
    n_slices: int = 24
    # What differs from the preset: shorter trainings, as these brains are simpler than real ones.
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: {
            "tokenizer__training__max_iter": 500,
            "evidence__training__max_iter": 800,
            "detector__n_painted": 8,
            "detector__training__max_iter": 800,
            "inpainter__training__max_iter": 300,
        }
    )
    scan_fpr: float = 0.1  # so few scans allow for no smaller one


def run_demo(
    output: Path, *, seed: int = 0, device: str = "auto", overwrite: bool = False, verbose: bool = False,
    say: Say = print,
) -> dict[str, Any]:  # fmt: skip
    """Run the main job on artificial brains, and return what ``metrics.json`` holds.

    Only an earlier demo is overwritten. ``say`` receives lines of text for the user.
    """
    output, settings = expand(output), DemoSettings()
    resolve_device(device)
    make_folder(output)
    with claimed(output / _LOCK, wait=False) as is_ours:
        if not is_ours:
            raise InputError(
                f"Another demo is at work in {str(output)!r} and holds {_LOCK!r}. Wait for its end, or choose "
                "another folder."
            )
        _prepare(output, {"seed": seed, **asdict(settings)}, overwrite)
        return _run(output, settings, seed, device, verbose, say)


def _prepare(output: Path, settings: dict[str, Any], overwrite: bool) -> None:
    existing = [name for name in (*_CREATED, _SETTINGS) if os.path.lexists(output / name)]
    if existing and not overwrite:
        raise InputError(
            f"{str(output)!r} holds {existing[0]!r} already. Pass --overwrite to replace an earlier demo, "
            "or choose another folder."
        )
    if existing and not (output / _SETTINGS).is_file():
        raise InputError(f"{str(output)!r} is not from an earlier demo. Choose another folder.")
    for path in (output / name for name in existing):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write(output / _SETTINGS, to_json(settings))


def _run(
    output: Path, settings: DemoSettings, seed: int, device: str, verbose: bool, say: Say
) -> dict[str, Any]:
    from skmimood.datasets import write_phantom_dataset

    started = time.monotonic()
    n_healthy = settings.n_fit + settings.n_healthy
    say(f"Making {n_healthy} healthy artificial brains and {settings.n_patients} with lesions.")
    cohort = write_phantom_dataset(
        output / "scans", n_healthy=n_healthy, n_lesions=settings.n_patients, size=settings.image_size,
        n_slices=settings.n_slices, modality="t2", random_state=seed,
    )  # fmt: skip
    learned, healthy = cohort.healthy[: settings.n_fit], cohort.healthy[settings.n_fit :]
    job = FitJob(
        parameters=settings.parameters, size=settings.image_size, scan_fpr=settings.scan_fpr,
        calibration_fraction=0.25, seed=seed, device=device, verbose=verbose,
        overwrite=True,  # of a demo that was interrupted
    )  # fmt: skip
    detector = fit_model(learned, output / "model", job, say)
    table = score_scans(
        (*healthy, *cohort.scans), output / "model", output / "results", ScoreJob(device=device), say
    )
    metrics = _evaluate(cohort, healthy, output / "results", {one.id: one.score for one in table.outcomes})
    metrics["seconds"] = round(time.monotonic() - started, 1)
    write(output / "metrics.json", to_json(metrics))
    look_at = "metrics.json"
    if can_report():
        _draw_overview(output / "overview.png", cohort, detector)
        look_at = "overview.png and results/report.html"
    say("\n" + "\n".join(_table(metrics)))
    say(f"\nThe demo took {minutes(metrics['seconds'])}. Look at {look_at} in {str(output)!r}.")
    return metrics


def _evaluate(
    cohort: PhantomDataset, healthy: Sequence[Path], results: Path, scores: Mapping[str, float | None]
) -> dict[str, Any]:
    """Compare maps, and plain intensities, with the known lesions: in whole volumes, as MIM-OOD was, and in brains.

    Scans are told apart by their ``scores``, and by the mean of the highest 1 % of their intensities.
    """
    from skmimood.datasets import LESION_KINDS

    patients = [_read(*pair, results) for pair in zip(cohort.scans, cohort.masks, strict=True)]
    scans = [*patients, *(_read(path, None, results) for path in healthy)]
    brains = [{name: values[scan["brain"]] for name, values in scan.items()} for scan in scans]
    brains_of_patients = brains[: len(patients)]
    found: dict[str, Any] = {"n_patients": len(patients), "n_healthy_scans": len(healthy)}
    for name, pixels in (("all", _pooled(patients)), ("brain", _pooled(brains_of_patients))):
        lesion = pixels["lesion"]
        found[name] = {"n_pixels": lesion.size, "base_rate": float(lesion.mean())}
        found[name] |= {method: _metrics(lesion, pixels[method]) for method in _METHODS}
    found["auroc_by_lesion"] = {}
    for first, kind in enumerate(LESION_KINDS[: len(patients)]):
        pixels = _pooled(brains_of_patients[first :: len(LESION_KINDS)])
        found["auroc_by_lesion"][kind] = {m: auroc(pixels["lesion"], pixels[m]) for m in _METHODS}
    is_patient = np.arange(len(scans)) < len(patients)
    of_scans = {
        "skmimood": [scores[scan_id(path)] for path in (*cohort.scans, *healthy)],
        "intensity": [top_mean(brain["intensity"]) for brain in brains],
    }
    found["scan_auroc"] = {method: auroc(is_patient, np.array(of_scans[method])) for method in _METHODS}
    return found


def _read(path: Path, mask: Path | None, results: Path) -> _Pixels:
    """Read the pixels of a scan; which of them are brain does not depend on any method."""
    from scipy.ndimage import binary_fill_holes

    scan = read_scan(path)
    lesion = np.zeros(scan.data.shape, dtype=bool) if mask is None else read_labels(mask, scan)
    # The background of these scans is exactly 0, and so may be the core of a dark lesion.
    brain = lesion | np.stack([binary_fill_holes(plane) for plane in (scan.data > 0).T]).T
    anomaly = read_scan(result_paths(results, scan_id(path))[0]).data
    # Scans differ in gain: without scaling, pooled intensities would rank scans, not pixels.
    intensity = scan.data / float(np.percentile(scan.data[brain], 98))
    volumes = {"lesion": lesion, "brain": brain, "skmimood": anomaly, "intensity": intensity}
    return {name: volume.ravel() for name, volume in volumes.items()}


def _pooled(scans: Sequence[_Pixels]) -> _Pixels:
    return {name: np.concatenate([scan[name] for scan in scans]) for name in scans[0]}


def _metrics(lesion: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    precision = average_precision(lesion, scores)
    return {
        "auroc": auroc(lesion, scores),
        "average_precision": precision,
        "ap_ratio": precision / float(lesion.mean()),
        "best_dice": best_dice(lesion, scores),
    }


def _table(metrics: Mapping[str, Any]) -> list[str]:
    """Return metrics as lines of text, one column a method."""
    lines = [_row(f"{metrics['n_patients']} scans with lesions", _METHODS)]
    for name in ("all", "brain"):
        found = metrics[name]
        lines.append(f"{name} {found['n_pixels']:,} pixels, {found['base_rate']:.2%} lesion")
        for title, (key, digits) in _ROWS.items():
            lines.append(_row(f"  {title}", [format(found[method][key], digits) for method in _METHODS]))
    by_lesion = {f"  AUROC, {kind}": values for kind, values in metrics["auroc_by_lesion"].items()}
    lines += [_row(title, [f"{values[m]:.3f}" for m in _METHODS]) for title, values in by_lesion.items()]
    return [
        *lines,
        f"scans, {metrics['n_healthy_scans']} of them healthy",
        _row("  AUROC", [f"{metrics['scan_auroc'][method]:.3f}" for method in _METHODS]),
        "Both columns are of the same pixels. Intensity is the scan itself: the brighter, the more anomalous.",
    ]


def _row(name: str, values: Sequence[str]) -> str:
    return f"{name:<30}" + "".join(f"{value:>11}" for value in values)


def _draw_overview(path: Path, cohort: PhantomDataset, detector: ScanDetector) -> None:
    """Draw the slice that holds most of the lesion, for one patient of each kind of lesion."""
    from skmimood.datasets import LESION_KINDS

    galleries, truths = [], []
    for scan, mask, _ in zip(cohort.scans, cohort.masks, LESION_KINDS, strict=False):
        prepared = detector._reader().read(ListedScan(scan_id(scan), scan))
        maps = detector._frame().map(prepared, detector.pipeline_, detector.slice_smoothing_)
        truth = maps.plan.forward(read_labels(mask, prepared.scan), order=0) > 0.5
        most = truth.sum(axis=(1, 2)).argmax(keepdims=True)
        galleries.append(maps.gallery(most, detector.pixel_threshold_))
        truths.append(truth[most])
    parts = {name: np.concatenate([vars(one)[name] for one in galleries]) for name in vars(galleries[0])}
    labels = LESION_KINDS[: len(galleries)]
    scale, truth = ColourScale.of(detector), np.concatenate(truths)
    figure = SliceDisplay(Gallery(**parts), scale, row_labels=labels, truth=truth).plot().figure_
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    write(path, stream.getvalue())
