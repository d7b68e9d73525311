"""Fit a model on healthy scans and save it, so that an interruption costs little.

What a training has learned so far lies in a hidden folder beside its model, with the settings it was begun with.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from skmimood.exceptions import InputError, ModelLoadError, listing
from skmimood.jobs import files
from skmimood.jobs.description import describe_lines, minutes
from skmimood.jobs.locks import claimed
from skmimood.jobs.splits import select_split
from skmimood.nifti import Source, scan_ids
from skmimood.nifti.names import file_path
from skmimood.persistence import check_replaceable, fingerprint, read_manifest, remove_leftovers, save_model
from skmimood.preprocessing import Plane
from skmimood.runtime.device import resolve_device
from skmimood.runtime.paths import expand
from skmimood.scans.sources import label_images, mask_suffixes
from skmimood.scans.subjects import groups_in_table

if TYPE_CHECKING:
    from skmimood.scans import ScanDetector

Say = Callable[[str], None]

# How a training runs, and how its scans are chosen: no network depends on these.
_OF_THE_RUN = ("device", "cache", "resume", "overwrite", "verbose", "modality", "split", "groups")
_SETTINGS = "fit.json"
_REPLACED = "replaces"  # there, the fingerprint of the model that stood at the output when the training began
_NAME_LENGTH = 200


@dataclass(frozen=True)
class FitJob:
    """What to learn from, and how. What is None is as :class:`skmimood.ScanDetector` and the preset have it."""

    preset: str = "tiny"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the pipeline that differ from the preset, such as ``{"tokenizer__training__max_iter": 100}``."""
    plane: Plane = "axial"
    spacing: float | None = None
    size: int | None = None
    mask: str = "auto"
    modality: str | None = None
    lesions: str | None = None
    """Ending of the lesion masks beside the scans."""
    split: str | None = None
    """Learn only from the subjects of this split in ``splits.csv``."""
    groups: Path | None = None
    """Table with the columns subject and group, of scans that training and calibration must not share."""
    volume: int | None = None
    fpr: float | None = None
    scan_fpr: float | None = None
    calibration_fraction: float | None = None
    slice_smoothing: float | None = None
    max_bytes: int | None = None
    max_invalid: float | None = None
    seed: int = 0
    device: str = "auto"
    cache: Path | None = None
    """Folder that keeps trained networks for later equal fits."""
    resume: bool = False
    """Go on with an unfinished training of the same output, if it has the same settings and scans."""
    overwrite: bool = False
    """Replace a model, and without ``resume`` an unfinished training, once this one has learned something."""
    verbose: bool = False
    """Show how far the fit is and how long it may still take."""


def fit_model(paths: Sequence[str | os.PathLike], output: Path, job: FitJob, say: Say) -> ScanDetector:
    """Fit a detector on healthy scans and save it.

    What an interrupted training has learned stays in a hidden folder beside ``output`` until a fit with
    ``resume`` has finished. Of the processes that torchrun starts, only the first writes and prints.

    ``paths`` are folders, globs and files; ``output``, where the model goes, is checked before anything is learned;
    ``say`` receives lines of text for the user.
    """
    from skmimood.runtime import distributed

    # A link is followed, and "." or ".." has a name.
    output = Path(os.path.realpath(expand(output)))
    distributed.join()
    if not distributed.is_first():
        job, say = replace(job, verbose=False), lambda line: None
    distributed.on_first(lambda: _check_output(output, paths, job))
    detector = _unfitted(job, folder_of(output))
    detector._check_parameters()
    resolve_device(job.device)
    sources = healthy_sources(paths, job)
    grouped = {} if job.groups is None else {"groups": groups_in_table(sources, job.groups)}
    with contextlib.ExitStack() as work:

        def begin() -> bool:
            settings = _settings(job, sources, grouped.get("groups"))
            return work.enter_context(
                begun(output, settings, resume=job.resume, overwrite=job.overwrite, say=say)
            )

        if distributed.on_first(begin):
            return type(detector).load(output)
        say(f"Learning from {len(sources)} scans with preset {job.preset!r}.")
        started = time.monotonic()
        detector.fit(sources, job.lesions, **grouped)
        save_model(detector, output, overwrite=job.overwrite)
    _say_summary(detector, output, time.monotonic() - started, say)
    return detector


def healthy_sources(paths: Sequence[str | os.PathLike], job: FitJob) -> list[Source]:
    """List the scans that a job learns from."""
    choice: dict[str, Any] = {"suffix": job.modality, "exclude": mask_suffixes(job.mask, job.lesions)}
    found = select_split(paths, job.split, **choice)
    labels = label_images(found, **choice)
    return [source for place, source in enumerate(found) if place not in labels or len(labels) == len(found)]


def _unfitted(job: FitJob, unfinished: Path) -> ScanDetector:
    from skmimood.pipeline import PRESET_IMAGE_SIZE, make_mimood_pipeline
    from skmimood.scans import ScanDetector

    # A finished step of an interrupted fit comes from the cache, the one it was in from its checkpoint.
    memory = str(job.cache or unfinished / "cache")
    pipeline = make_mimood_pipeline(
        job.preset, random_state=job.seed, device=job.device, memory=memory, verbose=job.verbose
    )
    for step in pipeline.named_steps.values():
        step.set_params(training__checkpoint_dir=str(unfinished), training__resume=job.resume)
    detector = ScanDetector(
        pipeline.set_params(**job.parameters), size=PRESET_IMAGE_SIZE[job.preset], random_state=job.seed
    )
    shared = vars(job).keys() & detector.get_params(deep=False).keys()
    return detector.set_params(
        **{name: value for name in shared if (value := getattr(job, name)) is not None}
    )


def _settings(job: FitJob, sources: Sequence[Source], groups: Sequence[str] | None) -> dict[str, Any]:
    """Return what a training depends on, as JSON values; None is the default, whether it was named or not."""
    defaults = _unfitted(FitJob(job.preset), Path()).get_params(deep=False)
    defaults = {each.name: defaults.get(each.name) for each in fields(job) if each.default is None}
    named = {name: value for name, value in vars(job).items() if name not in _OF_THE_RUN}
    named = {name: None if value == defaults.get(name) else value for name, value in named.items()}
    digests = [
        files.digest_of(source, job.mask, job.lesions) if file_path(source) else "" for source in sources
    ]
    return {**named, "groups": groups, "scans": dict(zip(scan_ids(sources), digests, strict=True))}


def folder_of(output: Path) -> Path:
    """Return the hidden folder beside a model in which its training keeps what it has learned so far."""
    return output.parent / f".{output.name[:_NAME_LENGTH]}.checkpoints"


@contextlib.contextmanager
def begun(
    output: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool, say: Callable[[str], None]
) -> Iterator[bool]:
    """Hold the folder of an unfinished training while it goes on; it is removed if nothing is raised.

    With ``resume`` it goes on with what lies there, if that was begun with the same settings. Without it, ``overwrite``
    replaces what lies there, which comes back if this training ends before it has learned anything.

    Yield whether that training had saved its model before it was ended, so that nothing is left to do.
    """
    folder = folder_of(output)
    earlier = folder.with_name(f"{folder.name}.earlier")
    files.make_folder(output.parent)
    lock = folder.with_suffix(".lock")
    with claimed(lock, wait=False) as is_ours:
        if not is_ours:
            raise InputError(
                f"Another fit of {output.name!r} is at work and holds {lock.name!r}. Wait for its end, or choose "
                "another output."
            )
        is_saved = resume and _has_saved(output)
        if not is_saved:
            _settle(folder, earlier)  # if the last one was killed
        remove_leftovers(output)
        is_there = folder.is_dir() and any(folder.iterdir())
        if resume and is_there:
            resumed = _resumed(folder, output, settings)
            say(f"{str(output)!r} was saved before: its training is finished." if is_saved else resumed)
        elif resume:
            say("There is nothing to resume: all is trained anew.")
        elif is_there and not overwrite:
            raise InputError(
                f"An unfinished training of {output.name!r} lies in {folder.name!r}. Add --resume to "
                "finish it, or --overwrite to start anew."
            )
        elif is_there:
            folder.rename(earlier)
        files.make_folder(folder)
        try:
            replaced = _record_of(folder).get(_REPLACED, _fingerprint(output))
            files.write(folder / _SETTINGS, files.to_json({_REPLACED: replaced, **settings}))
            yield is_saved
            shutil.rmtree(earlier, ignore_errors=True)
            _remove(folder)
        finally:
            _settle(folder, earlier)


def _settle(folder: Path, earlier: Path) -> None:
    """Keep what has been learned: of this training or, if that is nothing, of the one that it was to replace."""
    if not any(path.suffix == ".safetensors" or path.name == "output.pkl" for path in folder.rglob("*")):
        shutil.rmtree(folder, ignore_errors=True)
        if earlier.exists():
            earlier.rename(folder)
    shutil.rmtree(earlier, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Remove the folder of a training that is finished, its record last: a kill meanwhile leaves what tells of it."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _SETTINGS:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _record_of(folder: Path) -> dict[str, Any]:
    """Return what a training has written of how it began; empty if that is missing."""
    try:
        record = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _fingerprint(output: Path) -> str | None:
    with contextlib.suppress(OSError):
        return fingerprint(output)
    return None


def _has_saved(output: Path) -> bool:
    """Tell whether an unfinished training has saved its model: not what stood there before, and of the same scans."""
    record, found = _record_of(folder_of(output)), _fingerprint(output)
    if found is None or record.get(_REPLACED, found) == found:
        return False
    try:
        learned = read_manifest(output)["estimator"].get("fitted", {})
    except ModelLoadError:
        return False
    return {line["id"] for line in learned.get("fit_status_", ())} == set(record["scans"])


def _resumed(folder: Path, output: Path, settings: Mapping[str, Any]) -> str:
    """Say what is resumed, or refuse if it was begun with other settings."""
    try:
        changed = _changes(_record_of(folder), json.loads(files.to_json(settings)))
    except (AttributeError, KeyError):
        return f"{folder.name!r} has no record of the settings it was begun with; what fits these settings is used."
    if changed:
        raise InputError(
            f"The unfinished training of {output.name!r} was begun with {listing(changed)}. Repeat that, or use "
            "--overwrite without --resume to start anew."
        )
    return f"Resuming the training in {folder.name!r}."


def _changes(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name what was different when a training began."""
    names = sorted((earlier.keys() | now.keys()) - {"scans", _REPLACED})
    differing = {name: earlier.get(name) for name in names if earlier.get(name) != now.get(name)}
    changed = [f"the default {name}" if was is None else f"{name}={was!r}" for name, was in differing.items()]
    before, after = earlier["scans"], now["scans"]
    missing, added = before.keys() - after.keys(), after.keys() - before.keys()
    other = {scan for scan in before.keys() & after.keys() if before[scan] != after[scan]}
    counts = (("more", missing), ("fewer", added), ("other", other))
    changed += [f"{len(scans)} {how} scans ({min(scans)})" for how, scans in counts if scans]
    return changed


def _check_output(output: Path, paths: Sequence[str | os.PathLike], job: FitJob) -> None:
    """Find out now whether the model can be saved, not after hours of training."""
    files.refuse_inputs_within(output, paths)
    if job.cache is not None and files.is_within(job.cache, output):
        raise InputError(f"The cache {str(job.cache)!r} lies in the model's folder. Choose another cache.")
    if not (job.resume and _has_saved(output)):
        check_replaceable(output, job.overwrite)


def _say_summary(detector: ScanDetector, output: Path, seconds: float, say: Say) -> None:
    lines = detector.fit_status_
    counts = Counter(line.status for line in lines)
    n_left_out = counts["skipped"] + counts["duplicate"]
    say(f"Saved {str(output)!r} after {minutes(seconds)}.")
    say(
        f"{len(lines)} scans: {counts['used']} learned from, {counts['calibration']} for calibration, "
        f"{n_left_out} left out."
    )
    n_subjects = len({line.group for line in lines})
    if n_subjects < len(lines):
        say(f"They are of {n_subjects} subjects or groups; none is both learned from and calibrated on.")
    taken = [line for line in lines if line.status in ("used", "calibration")]
    shapes = sorted({line.shape for line in taken})
    steps = [step for line in taken for step in line.spacing]
    given = f"{len(shapes)} shapes" if len(shapes) > 1 else " x ".join(map(str, shapes[0])) + " voxels"
    low, high = f"{min(steps):.3g}", f"{max(steps):.3g}"
    spacings = f"spacing {low} mm" if low == high else f"spacings from {low} to {high} mm"
    say(f"Their grids: {given}, {spacings}; all slices resampled to pixels of {detector.spacing_:.3g} mm.")
    volumes, shares = ([getattr(line, f"foreground_{name}") for line in taken] for name in ("ml", "share"))
    say(
        f"Foreground found: {min(volumes):,.0f} to {max(volumes):,.0f} ml (median {median(volumes):,.0f}), "
        f"{min(shares):.0%} to {max(shares):.0%} of each scan's volume."
    )
    for line in lines:
        if line not in taken:
            say(files.printable(f"  {line.status} {line.id}: {line.reason}"))
    for about in describe_lines(detector):
        say(f"  {about}")
