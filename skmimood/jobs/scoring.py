"""Score the scans of a folder: one line a scan, failures recorded, finished scans kept when interrupted."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from joblib import effective_n_jobs

from skmimood._paths import expand
from skmimood.exceptions import InputError, ScanReadError, SkmimoodError
from skmimood.jobs.description import facts, minutes
from skmimood.jobs.fitting import fingerprint
from skmimood.jobs.outcomes import ScanOutcome, StatusTable, output_stem
from skmimood.jobs.outputs import is_within, make_folder, printable, refuse_inputs_within
from skmimood.jobs.report import MISSING, can_report, load_gallery, save_gallery, write_report
from skmimood.jobs.splits import select_split
from skmimood.jobs.workers import marked, run_in_workers
from skmimood.nifti import Source, scan_ids, write_image
from skmimood.plotting import ColourScale
from skmimood.volumes.sources import find_named_or_chosen, first_places, mask_suffixes

if TYPE_CHECKING:
    from skmimood.volumes import ScanDetector

Say = Callable[[str], None]

_PICTURES = ".report"  # folder inside the output: what the report needs of each scan


@dataclass(frozen=True)
class ScoreJob:
    """How scans are scored.

    Parameters
    ----------
    modality : str, optional
        Ending of the files to take from a folder; by default the model's.
    split : str, optional
        Score only the subjects of this split in ``splits.csv``.
    mask, pixel_threshold, scan_threshold, volume, max_bytes, max_invalid : optional
        Instead of the model's.
    device : str, default="auto"
    resume : bool, default=False
        Keep the results of an earlier run and do the rest.
    overwrite : bool, default=False
        Replace the results of an earlier run.
    healed : bool, default=False
        Write the healed scans too.
    report : bool, default=True
        Write ``report.html``.
    n_jobs : int, optional
        Scans to score at the same time, each in a worker of the active joblib backend (by default processes of this
        machine). None is 1 unless a ``joblib.parallel_config`` says otherwise. Workers on other machines must find
        model, scans and output at the same paths.
    n_threads : int, optional
        CPU threads of each worker; by default the backend's choice, for processes their share of the cores.
    """

    modality: str | None = None
    split: str | None = None
    mask: str | None = None
    pixel_threshold: float | None = None
    scan_threshold: float | None = None
    volume: int | None = None
    max_bytes: int | None = None
    max_invalid: float | None = None
    device: str = "auto"
    resume: bool = False
    overwrite: bool = False
    healed: bool = False
    report: bool = True
    n_jobs: int | None = None
    n_threads: int | None = None


def score_scans(
    paths: Sequence[str | os.PathLike], model: Path, output: Path, job: ScoreJob, say: Say
) -> StatusTable:
    """Score scans and write maps, p-value maps, masks, ``scores.csv``, ``status.json`` and ``report.html``.

    Parameters
    ----------
    paths : sequence of paths
        Folders, globs and files.
    model : Path
        What ``fit_model`` or ``ScanDetector.save`` wrote.
    output : Path
        Folder for the results; it must not hold any of the scans.
    job : ScoreJob
    say : callable
        Receives lines of text for the user.

    Returns
    -------
    StatusTable
        With the scans of earlier runs too if the job resumes.

    Raises
    ------
    SkmimoodError
        If the job as a whole cannot be done. A scan that fails does not raise.
    """
    from skmimood.volumes import ScanDetector

    model, output = expand(model), expand(output)
    refuse_inputs_within(output, [*paths, model])
    detector = ScanDetector.load(model)
    _adjust(detector, job)
    scans = _scans(paths, output, detector, job, say)
    settings = {
        "model": fingerprint(model),
        "pixel_threshold": detector.pixel_threshold_,
        "scan_threshold": detector.scan_threshold_,
        "volume": detector.volume,
    }
    if job.mask is not None:
        settings["mask"] = job.mask
    table = _open(output, scans, settings, job)
    say(f"Scoring {len(scans)} scans.")
    n_scans = len(scans.keys() | {outcome.id for outcome in table.outcomes})
    state = "interrupted"
    try:
        _score_all(detector, model, scans, table, job, say, n_scans)
        state = "done"
    finally:
        table.write(state, n_scans=n_scans)
        table.write_scores()
    if job.report:
        _report(detector, table, job, say)
    n_scored = len(table) - table.n_failed
    say(f"{n_scored} scans scored, {table.n_failed} failed. Results are in {str(output)!r}.")
    return table


def pictures_of(output: Path, scan: str) -> Path:
    """Return the file that keeps the most anomalous slices of a scan."""
    return output / _PICTURES / (output_stem(scan) + ".npz")


def _adjust(detector: ScanDetector, job: ScoreJob) -> None:
    if job.modality is not None:
        detector.modality = job.modality
    if job.mask is not None:
        detector.mask = job.mask
    if job.volume is not None:
        detector.volume = job.volume
    if job.max_bytes is not None:
        detector.max_bytes = job.max_bytes
    if job.max_invalid is not None:
        detector.max_invalid = job.max_invalid
    if job.pixel_threshold is not None:
        detector.pixel_threshold_ = job.pixel_threshold
    if job.scan_threshold is not None:
        detector.scan_threshold_ = job.scan_threshold
    for _, step in detector.pipeline_.steps:
        if "device" in step.get_params(deep=False):
            step.set_params(device=job.device)


def _scans(
    paths: Sequence[str | os.PathLike], output: Path, detector: ScanDetector, job: ScoreJob, say: Say
) -> dict[str, Source]:
    """List the scans by their ids, without the results of earlier runs if the output lies in a folder of scans."""
    exclude = mask_suffixes(detector.mask, None, detector.modality)
    if job.split is None:
        found = find_named_or_chosen(paths, suffix=detector.modality, exclude=exclude)
    else:
        found = select_split(paths, job.split, suffix=detector.modality, exclude=exclude)
    scans = [source for source in found if not is_within(str(source), output)]
    if not scans:
        raise InputError(
            f"There are only results in {output.name!r}, no scans. Pass the folder of the scans."
        )
    places = first_places(scans)
    if len(places) < len(scans):
        say(f"{len(scans) - len(places)} of the files were named more than once; each is scored once.")
    scans = [scans[place] for place in places]
    return dict(zip(scan_ids(scans), scans, strict=True))


def _open(output: Path, scans: Collection[str], settings: dict[str, Any], job: ScoreJob) -> StatusTable:
    """Make the output folder ready, or refuse to replace what is in it."""
    make_folder(output)
    make_folder(output / _PICTURES)
    for left in [*output.glob(".skmimood-*.tmp"), *(output / _PICTURES).glob("*.begun")]:
        left.unlink(missing_ok=True)  # of a job that was ended by force
    if job.resume:
        return StatusTable.resume(output, settings)
    if job.overwrite:
        _remove_earlier(output)
    table = StatusTable(output, settings)
    results = [output / name for name in ("status.json", "scores.csv", "report.html")]
    results += [image for scan in scans for image in table.images(scan, healed=job.healed)]
    existing = [path.name for path in results if os.path.lexists(path)]
    if existing and not job.overwrite:
        raise InputError(
            f"{str(output)!r} holds results already, such as {existing[0]!r}. Pass --resume to do the scans "
            "that are missing, --overwrite to start anew, or choose another folder."
        )
    return table


def _remove_earlier(output: Path) -> None:
    """Remove the results that an earlier status lists, so that none stays beside a status without it."""
    try:
        earlier = StatusTable.read(output)
    except InputError:
        return
    for outcome in earlier.outcomes:
        if Path(outcome.id).name == outcome.id:  # an id that leads to another folder is none of ours
            _discard(outcome.id, earlier)
    if len(earlier):
        for name in ("status.json", "scores.csv", "report.html"):
            (output / name).unlink(missing_ok=True)


def _score_all(
    detector: ScanDetector, model: Path, scans: Mapping[str, Source], table: StatusTable, job: ScoreJob, say: Say,
    n_scans: int,
) -> None:  # fmt: skip
    waiting = {
        scan: source for scan, source in scans.items() if not table.is_finished(scan, healed=job.healed)
    }
    n_kept, noted = len(scans) - len(waiting), set()
    if effective_n_jobs(job.n_jobs) == 1:
        outcomes = (_score_one(detector, *each, table, job.healed) for each in waiting.items())
    else:
        outcomes = _score_in_workers(model, waiting, table, job)
    with contextlib.closing(outcomes):
        for number, outcome in enumerate(outcomes, start=n_kept + 1):
            table.record(outcome, n_scans=n_scans)
            say(f"[{number:>{len(str(len(scans)))}}/{len(scans)}] {_status_line(outcome)}")
            for flag in outcome.flags:
                if flag not in noted:  # a remark on every scan of a folder is read once
                    say(f"    note: {printable(flag)}")
                    noted.add(flag)
    if n_kept:
        say(f"{n_kept} scans were finished before and are kept.")


def _score_in_workers(
    model: Path, scans: Mapping[str, Source], table: StatusTable, job: ScoreJob
) -> Generator[ScanOutcome, None, None]:
    # A worker of another machine may have another working directory.
    shared = (model.absolute(), fingerprint(model), job, table.folder.absolute())
    tasks = {scan: (*shared, NamedScan(scan, Path(str(source)).absolute())) for scan, source in scans.items()}

    def give_up(scan: str) -> None:
        _discard(scan, table)
        _mark_of(table, scan).unlink(missing_ok=True)

    return run_in_workers(
        score_in_worker, tasks, n_jobs=job.n_jobs, is_begun=lambda scan: _mark_of(table, scan).exists(),
        give_up=give_up,
    )  # fmt: skip


class NamedScan(NamedTuple):
    """A scan on disk and what it is called beside the others of its job."""

    id: str
    path: Path


def score_in_worker(model: Path, mark: str, job: ScoreJob, output: Path, scan: NamedScan) -> ScanOutcome:
    """Score one scan in a process that may serve many: it loads the model once.

    Parameters
    ----------
    model : Path
    mark : str
        The model's `fingerprint`, so that another model in the same folder is not taken for it.
    job : ScoreJob
    output : Path
        Folder of the job, which is ready to be written to.
    scan : NamedScan

    Returns
    -------
    ScanOutcome
    """
    table = StatusTable(output, {})  # to name files by; the parent alone writes it
    with marked(_mark_of(table, scan.id)):
        return _score_one(_loaded(model, mark, job), *scan, table, job.healed)


@functools.lru_cache(maxsize=1)
def _loaded(model: Path, mark: str, job: ScoreJob) -> ScanDetector:
    import torch

    from skmimood.volumes import ScanDetector

    if job.n_threads is not None:
        torch.set_num_threads(job.n_threads)
    detector = ScanDetector.load(model)
    _adjust(detector, job)
    return detector


def _mark_of(table: StatusTable, scan: str) -> Path:
    """Return the file that says that a worker has begun a scan and not finished it."""
    return table.folder / _PICTURES / (output_stem(scan) + ".begun")


def _score_one(
    detector: ScanDetector, scan: str, source: Source, table: StatusTable, healed: bool
) -> ScanOutcome:
    """Score one scan and write its results; whatever is wrong with it becomes its outcome."""
    started, paths = time.monotonic(), table.images(scan, healed=True)
    try:
        result = detector.detect_scan(source)
        images = (result.anomaly, result.pvalues, result.mask, result.healed if healed else None)
        for image, path in zip(images, paths, strict=True):
            if image is None:
                path.unlink(missing_ok=True)  # it would not belong to the others
            else:
                write_image(image, path, overwrite=True)  # what must not be replaced was found before
        save_gallery(pictures_of(table.folder, scan), result.gallery)
    except ScanReadError as error:
        reason = error.reason
    except SkmimoodError as error:
        reason = str(error)
    except MemoryError:
        reason = "the computer ran out of memory. Close other programs, or resample the scan to fewer voxels."
    except Exception as error:  # a fault in one scan must not cost the others
        # Its text might hold anything, the paths of this computer for instance.
        reason = f"unexpected {type(error).__name__}, a fault in the program. Please report it."
    except BaseException:  # interrupted
        _discard(scan, table)
        raise
    else:
        return ScanOutcome(
            id=scan,
            status="ok",
            score=result.score,
            pvalue=result.pvalue,
            is_anomalous=None if detector.scan_threshold_ == math.inf else result.is_anomalous,
            seconds=round(time.monotonic() - started, 3),
            flags=result.flags,
        )
    _discard(scan, table)
    return ScanOutcome(id=scan, status="failed", seconds=round(time.monotonic() - started, 3), reason=reason)


def _discard(scan: str, table: StatusTable) -> None:
    """Leave no results of a scan rather than a part of them."""
    for path in (*table.images(scan, healed=True), pictures_of(table.folder, scan)):
        path.unlink(missing_ok=True)


def _status_line(outcome: ScanOutcome) -> str:
    name = printable(outcome.id)
    if outcome.status != "ok" or outcome.score is None:
        return f"{name}  FAILED: {printable(outcome.reason)}"
    numbers = f"score {outcome.score:.4f}  p {outcome.pvalue:.3g}"
    return f"{name}  {numbers}  {outcome.verdict}  {minutes(outcome.seconds)}"


def _report(detector: ScanDetector, table: StatusTable, job: ScoreJob, say: Say) -> None:
    if not can_report():
        say(MISSING)
        return
    are_set = (job.pixel_threshold is not None, job.scan_threshold is not None)
    write_report(
        table.folder / "report.html",
        table.outcomes,
        scale=ColourScale.of(detector),
        facts=facts(detector, are_thresholds_set=are_set),
        galleries=lambda scan: load_gallery(pictures_of(table.folder, scan)),
    )
