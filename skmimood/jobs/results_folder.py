"""The folder of the results: who may write there, what lies there already, and what may be removed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from skmimood.exceptions import InputError, listing, warn
from skmimood.jobs.locks import at_work, locked, locks_of_others
from skmimood.jobs.outcomes import HIDDEN, StatusTable
from skmimood.jobs.outputs import make_folder
from skmimood.scans.results import OUTPUTS, image_paths, output_stem

_TABLES = ("status.json", "scores.csv", "report.html")


@contextlib.contextmanager
def opened(
    output: Path, scans: Collection[str], settings: dict[str, Any], report: Callable[[StatusTable], None], *,
    default_mask: str, resume: bool, overwrite: bool, healed: bool,
) -> Iterator[StatusTable]:  # fmt: skip
    """Register a job in a folder and yield the folder's table; or refuse, and leave everything as it was.

    Jobs that resume may be at work together. A job that does not resume must find no other at work. At the end the
    tables of all jobs are written and, unless this job was interrupted, ``report`` is called.
    """
    hidden = output / HIDDEN
    make_folder(output)
    make_folder(hidden)
    with contextlib.ExitStack() as work:
        with locked(hidden / "start.lock"):
            if resume:
                table = StatusTable.resume(output, settings, default_mask)
            else:
                refuse_others(output)
                table = StatusTable(output, settings)
                _make_room(output, scans, overwrite=overwrite, healed=healed)
            if not locks_of_others(hidden):
                for left in [*output.glob(".skmimood-*.tmp"), *hidden.glob(".skmimood-*.tmp")]:
                    left.unlink(missing_ok=True)  # of a job that was ended by force
            mine = work.enter_context(at_work(hidden))
            # The next job finds the settings, even before the first scan has been scored.
            with locked(hidden / "status.lock"):
                if resume:
                    table.refresh()
                table.write("running", n_scans=len({*scans, *(line.id for line in table.outcomes)}))
        state = "interrupted"
        try:
            yield table
            state = "done"
        finally:
            with locked(hidden / "start.lock"), table.shared():
                table.write("running" if locks_of_others(hidden, mine) else state)
                table.write_scores()
                if state == "done":
                    report(table)


def refuse_others(output: Path) -> None:
    """Raise `InputError` if a job is at work in a folder."""
    if locks := locks_of_others(output / HIDDEN):
        raise InputError(
            f"Another job is at work in {str(output)!r} and holds {HIDDEN}/{locks[0].name}. Wait for its end, add "
            "--resume to share the work with it, or choose another folder."
        )


def holds_results(output: Path) -> bool:
    """Tell whether an earlier job has left results that `opened` with ``overwrite`` would remove."""
    return any(os.path.lexists(output / name) for name in _TABLES)


def pictures_of(output: Path, scan: str) -> Path:
    """Return the file that keeps the most anomalous slices of a scan."""
    return output / HIDDEN / (output_stem(scan) + ".npz")


def mark_of(output: Path, scan: str) -> Path:
    """Return the file whose lock a job holds while it is at a scan."""
    return output / HIDDEN / (output_stem(scan) + ".begun")


def discard(output: Path, scan: str) -> None:
    """Leave no results of a scan rather than a part of them."""
    for path in (*image_paths(output, scan), pictures_of(output, scan)):
        path.unlink(missing_ok=True)


def _make_room(output: Path, scans: Collection[str], *, overwrite: bool, healed: bool) -> None:
    """Remove earlier results, or refuse to."""
    if overwrite:
        _remove_earlier(output)
        return
    results = [output / name for name in _TABLES]
    results += [image for scan in scans for image in image_paths(output, scan, healed=healed)]
    existing = [path.name for path in results if os.path.lexists(path)]
    if existing:
        raise InputError(
            f"{str(output)!r} holds results already, such as {existing[0]!r}. Pass --resume to do the scans "
            "that are missing, --overwrite to start anew, or choose another folder."
        )


def _remove_earlier(output: Path) -> None:
    """Remove the results of earlier jobs, so that none stays beside a status without it."""
    # Each scored scan has pictures, so results are found beside a damaged status too.
    scored = {file.stem for file in (output / HIDDEN).glob("*.npz")}
    is_damaged = False
    try:
        scored |= {outcome.id for outcome in StatusTable.read(output).outcomes}
    except InputError:
        is_damaged = True
    for scan in scored:
        discard(output, scan)
    if scored:
        for name in _TABLES:
            (output / name).unlink(missing_ok=True)
    left = sorted(file.name for ending in OUTPUTS for file in output.glob(f"*{ending}"))
    if is_damaged and left:
        warn(
            f"status.json in {str(output)!r} is damaged, so these files may be left of earlier results: "
            f"{listing(left)}. Remove them if they are."
        )
