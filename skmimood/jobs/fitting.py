"""Fit a model on healthy scans and save it, so that an interruption costs little."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from skmimood.exceptions import InputError
from skmimood.jobs.description import describe_lines, minutes
from skmimood.jobs.digests import MANIFEST, digest_of
from skmimood.jobs.outputs import is_within, printable, refuse_inputs_within
from skmimood.jobs.splits import select_split
from skmimood.jobs.unfinished import begun, folder_of
from skmimood.nifti import Source, scan_ids
from skmimood.nifti.names import file_path
from skmimood.persistence import is_free, save_model
from skmimood.preprocessing import Plane
from skmimood.runtime.device import resolve_device
from skmimood.runtime.paths import expand
from skmimood.scans.sources import label_images, mask_suffixes
from skmimood.scans.state import check_parameters
from skmimood.scans.subjects import groups_in_table

if TYPE_CHECKING:
    from skmimood.scans import ScanDetector

Say = Callable[[str], None]

# How a training runs, and how its scans are chosen: no network depends on these.
_OF_THE_RUN = ("device", "cache", "resume", "overwrite", "verbose", "modality", "split", "groups")
# The detector has defaults for these.
_OPTIONAL = ("fpr", "scan_fpr", "calibration_fraction", "max_bytes", "max_invalid")


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

    Parameters
    ----------
    paths : sequence of paths
        Folders, globs and files.
    output : Path
        Where the model goes; checked before anything is learned.
    job : FitJob
    say : callable
        Receives lines of text for the user.
    """
    from skmimood.runtime import distributed

    # A link is followed, and "." or ".." has a name.
    output = Path(os.path.realpath(expand(output)))
    distributed.join()
    if not distributed.is_first():
        job, say = replace(job, verbose=False), lambda line: None
    distributed.on_first(lambda: _check_output(output, paths, job))
    detector = _unfitted(job, folder_of(output))
    check_parameters(detector)
    resolve_device(job.device)
    sources = healthy_sources(paths, job)
    grouped = {} if job.groups is None else {"groups": groups_in_table(sources, job.groups)}
    with contextlib.ExitStack() as work:

        def begin() -> None:
            settings = _settings(job, sources, grouped.get("groups"))
            work.enter_context(begun(output, settings, resume=job.resume, overwrite=job.overwrite, say=say))

        distributed.on_first(begin)
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
    return ScanDetector(
        pipeline.set_params(**job.parameters),
        plane=job.plane,
        spacing=job.spacing,
        size=job.size or PRESET_IMAGE_SIZE[job.preset],
        mask=job.mask,
        modality=job.modality,
        volume=job.volume,
        random_state=job.seed,
        verbose=job.verbose,
        **{name: value for name in _OPTIONAL if (value := getattr(job, name)) is not None},
    )


def _settings(job: FitJob, sources: Sequence[Source], groups: Sequence[str] | None) -> dict[str, Any]:
    """Return what a training depends on, as JSON values; None is the default, whether it was named or not."""
    defaults = _unfitted(FitJob(job.preset), Path()).get_params(deep=False)
    optional = {name: defaults[name] for name in ("size", *_OPTIONAL)}
    named = {name: value for name, value in vars(job).items() if name not in _OF_THE_RUN}
    named = {name: None if value == optional.get(name) else value for name, value in named.items()}
    digests = [digest_of(path, job.mask, job.lesions) if path else "" for path in map(file_path, sources)]
    return {**named, "groups": groups, "scans": dict(zip(scan_ids(sources), digests, strict=True))}


def _check_output(output: Path, paths: Sequence[str | os.PathLike], job: FitJob) -> None:
    """Find out now whether the model can be saved, not after hours of training."""
    refuse_inputs_within(output, paths)
    if job.cache is not None and is_within(job.cache, output):
        raise InputError(f"The cache {str(job.cache)!r} lies in the model's folder. Choose another cache.")
    if not is_free(output):
        if not job.overwrite:
            raise InputError(f"{str(output)!r} exists already. Choose another output, or add --overwrite.")
        if not (output / MANIFEST).is_file():
            raise InputError(f"{str(output)!r} is no model, so it is not overwritten. Choose another output.")
        if os.path.ismount(output):
            raise InputError(
                f"{str(output)!r} is a mount point, which cannot be replaced. Choose a folder in it."
            )


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
            say(printable(f"  {line.status} {line.id}: {line.reason}"))
    for about in describe_lines(detector):
        say(f"  {about}")
