"""Score the scans of a folder: one line a scan, failures recorded, finished scans kept when interrupted."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from joblib import effective_n_jobs

import skmimood
from skmimood.exceptions import InputError, ScanReadError, SkmimoodError, listing, warn
from skmimood.jobs import results
from skmimood.jobs.description import counted, facts, methods, minutes, versions
from skmimood.jobs.files import digest_of, is_within, printable, refuse_inputs_within, to_json, way_to, write
from skmimood.jobs.locks import claimed
from skmimood.jobs.report import MISSING, About, can_report, load_gallery, save_gallery, write_report
from skmimood.jobs.results import ScanOutcome, StatusTable
from skmimood.jobs.splits import select_split
from skmimood.jobs.viewer import write_viewer
from skmimood.jobs.workers import is_local, run_alone, run_in_workers
from skmimood.nifti import Source, bids, scan_ids
from skmimood.nifti.names import in_any_folder, present_parts
from skmimood.persistence import fingerprint
from skmimood.plotting import ColourScale
from skmimood.runtime.device import resolve_device
from skmimood.runtime.paths import expand
from skmimood.scans.sources import first_places, mask_suffixes

if TYPE_CHECKING:
    from skmimood.scans import ScanDetector

Say = Callable[[str], None]

# Attributes of a detector that a job may replace.
_REPLACED = ("modality", "mask", "volume", "max_bytes", "max_invalid", "pixel_threshold_", "scan_threshold_")
_TAKEN = (
    "another job has scored another file of this name into this folder, and its results are kept. Score this one into "
    "another folder, or with --resume once that job has ended."
)


@dataclass(frozen=True)
class ScoreJob:
    """How scans are scored. What is None is the model's."""

    modality: str | None = None
    split: str | None = None
    """Score only the subjects of this split in ``splits.csv``."""
    mask: str | None = None
    fpr: float | None = None
    """False-positive rate among healthy pixels, whose threshold the model's `HealthyReference` gives."""
    scan_fpr: float | None = None
    pixel_threshold: float | None = None
    """The threshold itself, in place of a rate."""
    scan_threshold: float | None = None
    volume: int | None = None
    max_bytes: int | None = None
    max_invalid: float | None = None
    device: str = "auto"
    resume: bool = False
    """Keep earlier results of the same files and masks, and do the rest; several such jobs may share a folder."""
    overwrite: bool = False
    """Replace earlier results, once it is known that one of the scans can be scored."""
    healed: bool = False
    """Write the healed scans too."""
    bids: bool = False
    """Write BIDS derivatives: the output is the root of a data set, and scans must be named by BIDS."""
    report: bool = True
    viewer: str = "flagged"
    """Scans that get a page of their own, beside the report: "none", "flagged" (those called anomalous) or "all"."""
    n_jobs: int | None = None
    """Scans at a time, each in a worker of the active joblib backend (by default processes of this machine). None is
    1 unless a ``joblib.parallel_config`` says otherwise. Workers elsewhere must find all files at the same paths."""
    n_threads: int | None = None
    """CPU threads of each worker; by default the backend's choice, for processes their share of the cores."""

    @property
    def pages(self) -> str:
        """The viewer, or "none" where there is no report."""
        return self.viewer if self.report and can_report() else "none"

    def adjust(self, detector: ScanDetector) -> None:
        """Make a detector do what the job asks for."""
        detector.set_rates(fpr=self.fpr, scan_fpr=self.scan_fpr)
        for name in _REPLACED:
            if (value := getattr(self, name.rstrip("_"))) is not None:
                setattr(detector, name, value)
        for _, step in detector.pipeline_.steps:
            if "device" in step.get_params(deep=False):
                step.set_params(device=self.device)


class NamedScan(NamedTuple):
    """A scan on disk, what it is called beside the others of its job, and the digest last scored under that name.

    Of several modalities, ``source`` is a tuple of their files.
    """

    id: str
    source: Source
    seen: str = ""


def score_scans(
    paths: Sequence[str | os.PathLike], model: Path, output: Path, job: ScoreJob, say: Say
) -> StatusTable:
    """Score scans and write maps, p-value maps, masks, ``scores.csv``, ``status.json`` and ``report.html``.

    ``paths`` are folders, globs and files, ``model`` is what ``fit_model`` or ``ScanDetector.save`` wrote, ``output`` a
    folder that holds none of the scans; ``say`` receives lines of text for the user. The table has the scans of earlier
    runs too if the job resumes. A scan that fails is recorded and raises nothing.
    """
    from skmimood.scans import ScanDetector

    for what, rate in (("pixel", job.fpr), ("scan", job.scan_fpr)):
        if rate is not None and getattr(job, f"{what}_threshold") is not None:
            raise InputError(f"A {what} threshold and its false-positive rate exclude each other. Give one.")
    model, output = expand(model).absolute(), expand(output)
    refuse_inputs_within(output, [*paths, model])
    if not job.resume:
        results.refuse_others(output)
    detector = ScanDetector.load(model)
    if is_local(job.n_jobs):
        resolve_device(job.device)  # reports a missing device once, not for each scan
    default_mask = detector.mask
    job.adjust(detector)
    scans = _named_scans(paths, output, detector, job, say)
    if job.overwrite and results.holds_results(output) and (failed := _failures(model, scans, job)):
        for outcome in failed:
            say(_status_line(outcome))
        say(f"No scan can be scored, so the earlier results in {str(output)!r} are kept.")
        return StatusTable(output, {}, failed)
    settings = {
        "model": fingerprint(model),
        "pixel_threshold": detector.pixel_threshold_,
        "scan_threshold": detector.scan_threshold_,
        "volume": detector.volume,
        "mask": detector.mask,
        "bids": job.bids,
    }
    if job.bids:
        _check_bids(scans, output)
    with results.opened(
        output, scans, settings, functools.partial(_report, detector, job), default_mask=default_mask,
        resume=job.resume, overwrite=job.overwrite, healed=job.healed, viewer=job.pages,
    ) as table:  # fmt: skip
        if job.bids:
            write(output / "dataset_description.json", to_json(bids.description(skmimood.__version__)))
            write(output / ".bidsignore", "".join(f"{name}\n" for name in (*results.TABLES, "*.html")))
        say(f"Scoring {counted(len(scans), 'scan')}.")
        if job.report and not can_report():
            say(MISSING)
        _score_all(detector, model, scans, table, job, say)
    n_failed = table.n_failed + len(table.refused)
    n_scored = counted(len(table) - table.n_failed, "scan")
    say(f"Results of {n_scored} are in {str(output)!r}; {n_failed} failed.")
    return table


def _check_bids(scans: Collection[str], output: Path) -> None:
    """Raise `InputError` unless scans have names of their own in BIDS, and the output is no data set of scans."""
    if bids.is_data_set(output):
        raise InputError(
            f"{str(output)!r} is a BIDS data set of scans. Pass a folder for its derivatives, such as "
            f"{str(output / 'derivatives' / 'skmimood')!r}."
        )
    places: dict[str, str] = {}
    for scan in scans:
        if (other := places.setdefault(bids.result_names(scan)[0], scan)) != scan:
            raise InputError(
                f"{scan!r} and {other!r} would have results of one name in BIDS. Score each into a folder of its own."
            )


def _named_scans(
    paths: Sequence[str | os.PathLike], output: Path, detector: ScanDetector, job: ScoreJob, say: Say
) -> dict[str, Source]:
    """List the scans by their ids, without the results of earlier runs if the output lies in a folder of scans."""
    exclude = mask_suffixes((detector.mask, detector.mask_), None)
    found = select_split(paths, job.split, suffix=detector.modality, exclude=exclude)
    scans = [source for source in found if not is_within(present_parts(source)[0], output)]
    if not scans:
        raise InputError(f"{output.name!r} holds only results, no scans. Pass the folder of the scans.")
    places = first_places(scans)
    if len(places) < len(scans):
        say(f"Passed over, as named more than once: {counted(len(scans) - len(places), 'file')}.")
    scans = [scans[place] for place in places]
    # A worker of another machine may have another working directory.
    return dict(zip(scan_ids(scans), map(in_any_folder, scans), strict=True))


def _failures(model: Path, scans: dict[str, Source], job: ScoreJob) -> list[ScanOutcome]:
    """Map scans, where the job will do it, until one can be mapped; return the failures of all if none can."""
    failed, n_jobs = [], 1 if is_local(job.n_jobs) else job.n_jobs
    shared = (model, fingerprint(model), job)
    for scan, source in scans.items():
        outcome = run_alone(try_in_worker, scan, (*shared, scan, source), n_jobs)
        if outcome.status == "ok":
            return []
        failed.append(outcome)
    return failed


def _score_all(
    detector: ScanDetector, model: Path, scans: dict[str, Source], table: StatusTable, job: ScoreJob, say: Say
) -> None:
    waiting = _unfinished(detector, scans, table, job)
    n_done = n_kept = len(scans) - len(waiting)
    noted: set[str] = set()
    for wait in (False, True):  # scans that other jobs are at come last
        busy: dict[str, NamedScan] = {}
        with contextlib.closing(_outcomes(detector, model, waiting, table, job, wait=wait)) as outcomes:
            for outcome in outcomes:
                if outcome.status == "busy":
                    busy[outcome.id] = waiting[outcome.id]
                    continue
                n_done += 1
                n_kept += outcome.status == "kept"
                if outcome.status == "taken":
                    table.refused.append(outcome)
                elif outcome.status != "kept" and table.outcome(outcome.id) != outcome:
                    table.record(outcome)  # a worker may have died before it did
                say(f"[{n_done:>{len(str(len(scans)))}}/{len(scans)}] {_status_line(outcome)}")
                for flag in outcome.flags:
                    if flag not in noted:  # a remark on every scan of a folder is read once
                        say(f"    note: {printable(flag)}")
                        noted.add(flag)
        waiting = busy
    if n_kept:
        say(f"Finished before and kept: {counted(n_kept, 'scan')}.")


def _unfinished(
    detector: ScanDetector, scans: dict[str, Source], table: StatusTable, job: ScoreJob
) -> dict[str, NamedScan]:
    """Return the scans without results, and those whose results are of another file, with a warning."""
    waiting: dict[str, NamedScan] = {}
    changed: list[str] = []
    unknown: list[str] = []
    for scan, source in scans.items():
        seen = table.outcome(scan)
        if seen is not None and table.is_finished(scan, healed=job.healed, viewer=job.pages):
            if seen.digest and seen.digest == digest_of(source, detector.mask):
                continue
            (changed if seen.digest else unknown).append(scan)
        waiting[scan] = NamedScan(scan, source, seen.digest if seen else "")
    for why, names in (
        ("the file or its mask is not the one that was scored under this name", changed),
        ("an earlier version did not note which file was scored", unknown),
    ):
        if names:
            warn(f"Scored again, since {why}: {listing(names)}. Earlier results are replaced.")
    return waiting


def _outcomes(
    detector: ScanDetector, model: Path, scans: dict[str, NamedScan], table: StatusTable, job: ScoreJob, *, wait: bool
) -> Generator[ScanOutcome, None, None]:  # fmt: skip
    if effective_n_jobs(job.n_jobs) == 1:
        return (attempt(detector, scan, table, job, wait=wait) for scan in scans.values())
    shared = (model, fingerprint(model), job, table.folder.absolute(), wait)

    def give_up(scan: str) -> None:
        with claimed(results.mark_of(table.folder, scan), wait=False) as is_ours:
            if is_ours:  # and of no other job
                results.discard(table.folder, scan)

    return run_in_workers(
        score_in_worker, {name: (*shared, scan) for name, scan in scans.items()}, n_jobs=job.n_jobs,
        is_begun=lambda scan: results.mark_of(table.folder, scan).exists(), give_up=give_up,
    )  # fmt: skip


def score_in_worker(
    model: Path, mark: str, job: ScoreJob, output: Path, wait: bool, scan: NamedScan
) -> ScanOutcome:
    """Score one scan in a process that may serve many; ``mark`` is the model's `fingerprint`."""
    return attempt(_loaded(model, mark, job), scan, StatusTable.read(output), job, wait=wait)


def try_in_worker(model: Path, mark: str, job: ScoreJob, scan: str, source: Source) -> ScanOutcome:
    """Map one scan as `score_in_worker` does, but write nothing."""
    detector = _loaded(model, mark, job)
    try:
        detector.detect_scan(source)
    except Exception as error:
        return ScanOutcome(scan, "failed", reason=_reason(error))
    return ScanOutcome(scan, "ok")


@functools.lru_cache(maxsize=1)  # another model in the same folder has another mark
def _loaded(model: Path, mark: str, job: ScoreJob) -> ScanDetector:
    import torch

    from skmimood.scans import ScanDetector

    if job.n_threads is not None:
        torch.set_num_threads(job.n_threads)
    detector = ScanDetector.load(model)
    job.adjust(detector)
    return detector


def attempt(
    detector: ScanDetector, scan: NamedScan, table: StatusTable, job: ScoreJob, *, wait: bool
) -> ScanOutcome:
    """Score a scan and record it, unless another job of the folder is at it or has done it."""
    with claimed(results.mark_of(table.folder, scan.id), wait=wait) as is_ours:
        if not is_ours:
            return ScanOutcome(scan.id, "busy")
        table.refresh()
        digest, recorded = digest_of(scan.source, detector.mask), table.outcome(scan.id)
        if recorded is not None and recorded.digest:
            is_finished = table.is_finished(scan.id, healed=job.healed, viewer=job.pages)
            if recorded.digest == digest and is_finished:
                return replace(recorded, status="kept")
            if recorded.digest not in (digest, scan.seen):
                return ScanOutcome(scan.id, "taken", reason=_TAKEN)
        source = way_to(present_parts(scan.source)[0], table.folder)
        outcome = replace(_score(detector, scan, table.folder, job), digest=digest, source=source)
        table.record(outcome)
        return outcome


def _score(detector: ScanDetector, scan: NamedScan, folder: Path, job: ScoreJob) -> ScanOutcome:
    """Score a scan and write its results; whatever is wrong with it becomes its outcome."""
    started = time.monotonic()
    try:
        result = replace(detector.detect_scan(scan.source), id=scan.id)
        is_anomalous = None if detector.scan_threshold_ == math.inf else result.is_anomalous
        outcome = ScanOutcome(scan.id, "ok", result.score, result.pvalue, is_anomalous, flags=result.flags)
        results.discard(folder, scan.id)
        result.save(folder, healed=job.healed, in_bids=job.bids)
        save_gallery(results.pictures_of(folder, scan.id), result.gallery)
        if results.wants_page(job.pages, is_anomalous):
            page, scale = results.page_of(folder, scan.id), ColourScale.of(detector)
            write_viewer(page, outcome, result, scale, detector.reference_)
    except BaseException as error:
        results.discard(folder, scan.id)
        if not isinstance(error, Exception):  # interrupted
            raise
        outcome = ScanOutcome(scan.id, "failed", reason=_reason(error))
    return replace(outcome, seconds=round(time.monotonic() - started, 3))


def _reason(error: Exception) -> str:
    """Say why a scan failed; a fault in one scan must not cost the others."""
    if isinstance(error, ScanReadError):
        return error.reason
    if isinstance(error, SkmimoodError):
        return str(error)
    if isinstance(error, MemoryError):
        return "the computer ran out of memory. Close other programs, or resample the scan to fewer voxels."
    # Its text might hold anything, the paths of this computer for instance.
    return f"unexpected {type(error).__name__}, a fault in the program. Please report it."


def _status_line(outcome: ScanOutcome) -> str:
    name = printable(outcome.id)
    if outcome.status == "kept":
        return f"{name}  kept, scored by another job"
    if outcome.status != "ok" or outcome.score is None:
        return f"{name}  FAILED: {printable(outcome.reason)}"
    numbers = f"score {outcome.score:.4f}  p {outcome.pvalue:.3g}"
    return f"{name}  {numbers}  {outcome.verdict}  {minutes(outcome.seconds)}"


def _report(detector: ScanDetector, job: ScoreJob, table: StatusTable) -> None:
    if not (job.report and can_report()):
        return
    by_hand = [what for what in ("pixel", "scan") if getattr(job, f"{what}_threshold") is not None]
    about = About(
        scale=ColourScale.of(detector),
        plane=detector.plane_,
        healthy=detector.reference_.scan_scores.tolist(),
        scan_threshold=detector.scan_threshold_,
        facts=facts(detector, set_by_hand=by_hand)
        | {"Fingerprint": str(table.settings["model"]), "Versions": versions()},
        methods=methods(detector, set_by_hand=by_hand),
    )
    write_report(
        table.folder / "report.html",
        table.outcomes,
        about,
        galleries=lambda scan: load_gallery(results.pictures_of(table.folder, scan)),
        page_of=functools.partial(results.page_of, table.folder),
    )
