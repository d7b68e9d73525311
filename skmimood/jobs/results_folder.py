"""The folder of the results: who may write there, what lies there already, and what may be removed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from skmimood.exceptions import InputError
from skmimood.jobs.locks import at_work, locked, others_at_work
from skmimood.jobs.outcomes import HIDDEN, StatusTable, output_stem
from skmimood.jobs.outputs import make_folder

_TABLES = ("status.json", "scores.csv", "report.html")


@contextlib.contextmanager
def opened(
    output: Path, scans: Collection[str], settings: dict[str, Any], report: Callable[[StatusTable], None], *,
    resume: bool, overwrite: bool, healed: bool,
) -> Iterator[StatusTable]:  # fmt: skip
    """Be at work in a folder and yield its table; or refuse, and leave everything as it was.

    Jobs that resume may be at work together. Whoever does not resume must find nobody at work. At the end the tables
    are written of what all jobs have recorded, and by ``report``, unless the job was interrupted, the report.

    Raises
    ------
    InputError
        If another job is at work, or there are results that may not be replaced or do not fit the settings.
    ScanWriteError
        If the folder cannot be written to.
    """
    hidden = output / HIDDEN
    make_folder(output)
    make_folder(hidden)
    with contextlib.ExitStack() as work:
        with locked(hidden / "start.lock"):
            if not resume:
                refuse_company(output)
            is_shared = others_at_work(hidden)
            table = StatusTable.resume(output, settings) if resume else StatusTable(output, settings)
            if not resume:
                _make_room(table, scans, overwrite=overwrite, healed=healed)
            if not is_shared:
                for left in [*output.glob(".skmimood-*.tmp"), *hidden.glob(".skmimood-*.tmp")]:
                    left.unlink(missing_ok=True)  # of a job that was ended by force
            mine = work.enter_context(at_work(hidden))
            # Whoever comes next finds the settings, even before the first scan has been scored.
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
                table.write("running" if others_at_work(hidden, mine) else state)
                table.write_scores()
                if state == "done":
                    report(table)


def refuse_company(output: Path) -> None:
    """Raise `InputError` if a job is at work in a folder."""
    if others_at_work(output / HIDDEN):
        raise InputError(
            f"Another job is at work in {str(output)!r}. Wait for its end, add --resume to share the work with it, "
            "or choose another folder."
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


def discard(scan: str, table: StatusTable) -> None:
    """Leave no results of a scan rather than a part of them."""
    for path in (*table.images(scan, healed=True), pictures_of(table.folder, scan)):
        path.unlink(missing_ok=True)


def _make_room(table: StatusTable, scans: Collection[str], *, overwrite: bool, healed: bool) -> None:
    """Remove earlier results, or refuse to."""
    if overwrite:
        _remove_earlier(table.folder)
        return
    results = [table.folder / name for name in _TABLES]
    results += [image for scan in scans for image in table.images(scan, healed=healed)]
    existing = [path.name for path in results if os.path.lexists(path)]
    if existing:
        raise InputError(
            f"{str(table.folder)!r} holds results already, such as {existing[0]!r}. Pass --resume to do the scans "
            "that are missing, --overwrite to start anew, or choose another folder."
        )


def _remove_earlier(output: Path) -> None:
    """Remove the results that an earlier status lists, so that none stays beside a status without it."""
    try:
        earlier = StatusTable.read(output)
    except InputError:
        return
    for outcome in earlier.outcomes:
        discard(outcome.id, earlier)
    if len(earlier):
        for name in _TABLES:
            (output / name).unlink(missing_ok=True)
