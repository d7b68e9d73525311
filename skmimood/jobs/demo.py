"""The whole main job on artificial brains: make scans, fit, score, compare with the truth, report."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skmimood.exceptions import InputError
from skmimood.jobs.demo_metrics import evaluate_phantoms, metrics_table
from skmimood.jobs.description import minutes
from skmimood.jobs.fitting import FitJob, fit_model
from skmimood.jobs.locks import claimed
from skmimood.jobs.outputs import make_folder, to_json, write
from skmimood.jobs.report import can_report
from skmimood.jobs.scoring import ScoreJob, score_scans
from skmimood.nifti import read_labels, scan_id
from skmimood.plotting import ColourScale, plot_gallery
from skmimood.runtime.device import resolve_device
from skmimood.runtime.paths import expand
from skmimood.scans.mapping import Frame, run_pipeline
from skmimood.scans.sources import ListedScan

if TYPE_CHECKING:
    from skmimood.datasets import PhantomDataset
    from skmimood.scans import ScanDetector

Say = Callable[[str], None]

_CREATED = ("scans", "model", "results", "metrics.json", "overview.png")
_LOCK = ".demo.lock"
_SETTINGS = "demo.json"  # also the sign that a folder is a demo's, and may be overwritten


@dataclass(frozen=True)
class DemoSettings:
    """The sizes of the demo, chosen so that it ends within 5 minutes on two CPU cores."""

    n_fit: int = 40  # healthy scans to fit on, calibration included
    n_healthy: int = 8  # healthy scans to score
    n_patients: int = 10  # scans with lesions to score; the kinds of lesions take turns
    image_size: int = 64  # pixels along each side of a slice, of the scans and of the networks
    n_slices: int = 24
    # What differs from the preset: shorter trainings, as these brains are simpler than real ones.
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: {
            "tokenizer__training__max_iter": 500,
            "detector__n_painted": 8,
            "detector__training__max_iter": 800,
            "inpainter__training__max_iter": 300,
        }
    )
    scan_fpr: float = 0.1  # so few scans allow for no smaller one


def run_demo(
    output: Path,
    *,
    settings: DemoSettings | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    verbose: bool = False,
    say: Say = print,
) -> dict[str, Any]:
    """Run the main job on artificial brains, and return what ``metrics.json`` holds.

    Only an earlier demo is overwritten. ``say`` receives lines of text for the user.
    """
    output, settings = expand(output), settings or DemoSettings()
    fit_job = FitJob(
        parameters=settings.parameters,
        size=settings.image_size,
        scan_fpr=settings.scan_fpr,
        calibration_fraction=0.25,
        seed=seed,
        device=device,
        overwrite=True,  # of a demo that was interrupted
        verbose=verbose,
    )
    resolve_device(device)
    make_folder(output)
    with claimed(output / _LOCK, wait=False) as is_ours:
        if not is_ours:
            raise InputError(
                f"Another demo is at work in {str(output)!r} and holds {_LOCK!r}. Wait for its end, or choose "
                "another folder."
            )
        _prepare(output, {"seed": seed, **asdict(settings)}, overwrite)
        return _run(output, settings, fit_job, say)


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


def _run(output: Path, settings: DemoSettings, fit_job: FitJob, say: Say) -> dict[str, Any]:
    from skmimood.datasets import write_phantom_dataset

    started = time.monotonic()
    n_healthy = settings.n_fit + settings.n_healthy
    say(f"Making {n_healthy} healthy artificial brains and {settings.n_patients} with lesions.")
    cohort = write_phantom_dataset(
        output / "scans",
        n_healthy=n_healthy,
        n_lesions=settings.n_patients,
        size=settings.image_size,
        n_slices=settings.n_slices,
        modality="t2",
        random_state=fit_job.seed,
    )
    learned, healthy = cohort.healthy[: settings.n_fit], cohort.healthy[settings.n_fit :]
    detector = fit_model(learned, output / "model", fit_job, say)
    score_job = ScoreJob(device=fit_job.device)
    score_scans((*healthy, *cohort.scans), output / "model", output / "results", score_job, say)
    metrics = evaluate_phantoms(cohort, healthy, output / "results")
    metrics["seconds"] = round(time.monotonic() - started, 1)
    write(output / "metrics.json", to_json(metrics))
    look_at = "metrics.json"
    if can_report():
        _draw_overview(output / "overview.png", cohort, detector)
        look_at = "overview.png and results/report.html"
    say("\n" + "\n".join(metrics_table(metrics)))
    say(f"\nThe demo took {minutes(metrics['seconds'])}. Look at {look_at} in {str(output)!r}.")
    return metrics


def _draw_overview(path: Path, cohort: PhantomDataset, detector: ScanDetector) -> None:
    """Draw the slice that holds most of the lesion, for one patient of each kind of lesion."""
    from skmimood.datasets import LESION_KINDS
    from skmimood.scans import Gallery

    pairs = zip(cohort.scans, cohort.masks, strict=True)
    rows = [_lesion_slice(*pair, detector) for pair, _ in zip(pairs, LESION_KINDS, strict=False)]
    parts = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    truth, labels = parts.pop("truth"), LESION_KINDS[: len(rows)]
    figure = plot_gallery(Gallery(**parts), ColourScale.of(detector), row_labels=labels, truth=truth)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    write(path, stream.getvalue())


def _lesion_slice(path: Path, mask: Path, detector: ScanDetector) -> dict[str, np.ndarray]:
    """Return what a gallery holds, and the known lesion, of the slice with most of the lesion."""
    prepared = detector._reader().read(ListedScan(scan_id(path), path))
    plan = Frame(detector.plane_, detector.spacing_, detector.size_).plan(prepared)
    truth = plan.forward(read_labels(mask, prepared.scan), order=0) > 0.5
    indices = truth.sum(axis=(1, 2)).argmax(keepdims=True)
    images = plan.forward(prepared.intensities)[indices]
    maps, healed = run_pipeline(detector.pipeline_, images)
    maps = np.where(plan.forward(prepared.foreground, order=0)[indices] > 0.5, maps, 0)
    masks, truth = maps > detector.pixel_threshold_, truth[indices]
    return {
        "images": images,
        "healed": healed,
        "maps": maps,
        "masks": masks,
        "indices": indices,
        "truth": truth,
    }
