"""The folder of a scoring job's results: what became of each scan, who may write there, what may be removed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from skmimood.exceptions import InputError, listing, warn
from skmimood.jobs.files import make_folder, to_csv, to_json, write
from skmimood.jobs.locks import claimed, locked, locks_of_others
from skmimood.nifti.names import RESULT_EXTENSIONS
from skmimood.scans.results import OUTPUTS, further_healed, output_stem, possible_paths, written_paths

_HIDDEN = ".report"  # folder of what the report needs of each scan, and of the locks of the jobs
EVALUATION = "evaluation.csv"
"""What the table is called that `evaluate_results` writes."""

TABLES = ("status.json", "scores.csv", "report.html", EVALUATION)
"""What the files are called that are of all scans."""

_FORMAT = "skmimood-status"


@dataclass(frozen=True)
class ScanOutcome:
    """What became of one scan.

    ``status`` is "ok" or "failed", for a ``reason``. Never recorded are "kept", "busy" and "taken": another job of the
    folder has scored the scan, is at it, or has scored another file of this id. ``is_anomalous`` is None if the scan
    failed or the scan threshold is infinite. ``digest`` is that of the scan's bytes and its mask's, and ``source`` the
    way to the scan from the folder of the results; both are empty if an earlier version wrote the line. ``seconds`` is
    the time from reading to writing.
    """

    id: str
    status: str
    score: float | None = None
    pvalue: float | None = None
    is_anomalous: bool | None = None
    seconds: float = 0.0
    flags: tuple[str, ...] = ()
    reason: str = ""
    digest: str = ""
    source: str = ""

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> ScanOutcome:
        """Return an outcome of ``status.json``; raise ValueError, KeyError or TypeError if it is damaged."""
        score, pvalue = (None if line[name] is None else float(line[name]) for name in ("score", "pvalue"))
        verdict = None if line["is_anomalous"] is None else bool(line["is_anomalous"])
        flags, reason = tuple(map(str, line["flags"])), str(line["reason"])
        digest, source = (str(line.get(name, "")) for name in ("digest", "source"))
        known = (str(line["id"]), str(line["status"]), score, pvalue, verdict, float(line["seconds"]))
        return cls(*known, flags, reason, digest, source)

    @property
    def verdict(self) -> str:
        """What to say of the scan in two words."""
        if self.status != "ok":
            return "failed"
        if self.is_anomalous is None:
            return "no verdict"
        return "anomalous" if self.is_anomalous else "not anomalous"


class StatusTable:
    """The outcomes of the jobs in a folder, written anew after each scan.

    Several jobs may write to it: each reads what the others have recorded, under a lock, before it writes. ``settings``
    are what the results depend on besides the scans. ``refused`` are scans of this job that were not scored, since
    another job uses their ids for other files.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], outcomes: Iterable[ScanOutcome] = ()) -> None:
        self.folder = folder
        self.settings = json.loads(to_json(settings))  # as they will read after a round trip
        self.refused: list[ScanOutcome] = []
        self._outcomes = {outcome.id: outcome for outcome in outcomes}
        self._n_scans = 0  # that all jobs so far were asked for

    @classmethod
    def read(cls, folder: Path) -> StatusTable:
        """Open the table of an earlier run, an empty one if there was none; raise `InputError` if it is damaged."""
        file = folder / "status.json"
        if not file.exists():
            return cls(folder, {})
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError("another format")
            lines = map(ScanOutcome.from_json, content["scans"])
            # An id that leads to another folder is none of ours.
            table = cls(folder, dict(content["settings"]), [line for line in lines if _is_name(line.id)])
            table._n_scans = int(content["n_scans"])
            return table
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{file.name} in {folder.name!r} cannot be resumed from ({error}). "
                "Use --overwrite to start anew."
            ) from None

    def __len__(self) -> int:
        return len(self._outcomes)

    @property
    def outcomes(self) -> list[ScanOutcome]:
        """The outcomes by falling score, those without one last."""
        return sorted(
            self._outcomes.values(), key=lambda one: (one.score is None, -(one.score or 0.0), one.id)
        )

    @property
    def n_failed(self) -> int:
        """Number of scans without results."""
        return sum(outcome.status != "ok" for outcome in self._outcomes.values())

    def outcome(self, scan: str) -> ScanOutcome | None:
        """Return what became of a scan; None if that is not known."""
        return self._outcomes.get(scan)

    def is_finished(self, scan: str, *, healed: bool, viewer: str = "none") -> bool:
        """Tell whether a scan succeeded and its images, with ``healed`` the healed scan too, and its page are there."""
        outcome = self._outcomes.get(scan)
        if outcome is None or outcome.status != "ok" or not written_paths(self.folder, scan, healed=healed):
            return False
        return not wants_page(viewer, outcome.is_anomalous) or page_of(self.folder, scan).is_file()

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Read what other jobs have recorded; none of them writes meanwhile."""
        with locked(self.folder / _HIDDEN / "status.lock"):
            self.refresh()
            yield

    def refresh(self) -> None:
        """Read what other jobs have recorded so far."""
        with contextlib.suppress(InputError):  # damaged since; what is known here replaces it
            written = self.read(self.folder)
            # What is known here and not there was lost where a file system has no locks.
            self._outcomes |= written._outcomes
            self._n_scans = max(self._n_scans, written._n_scans)

    def record(self, outcome: ScanOutcome) -> None:
        """Note what became of a scan, and write ``status.json``."""
        with self.shared():
            if self._outcomes.get(outcome.id) != outcome:  # by the worker that scored it
                self._outcomes[outcome.id] = outcome
                self.write("running")

    def write(self, state: str, *, n_scans: int = 0) -> None:
        """Write ``status.json``; ``state`` is "running", "interrupted" or "done"."""
        self._n_scans = max(self._n_scans, n_scans, len(self))
        content = {
            "format": _FORMAT,
            "state": state,
            "n_scans": self._n_scans,
            "n_ok": len(self) - self.n_failed,
            "n_failed": self.n_failed,
            "settings": self.settings,
            "scans": [asdict(outcome) for outcome in self._outcomes.values()],
        }
        write(self.folder / "status.json", to_json(content))

    def write_scores(self) -> None:
        """Write ``scores.csv``."""
        columns = [field.name for field in fields(ScanOutcome) if field.name not in ("digest", "source")]
        rows = ([getattr(outcome, column) for column in columns] for outcome in self.outcomes)
        write(self.folder / "scores.csv", to_csv(columns, rows))


@contextlib.contextmanager
def opened(
    output: Path, scans: Collection[str], settings: dict[str, Any], report: Callable[[StatusTable], None], *,
    default_mask: str, resume: bool, overwrite: bool, healed: bool, viewer: str,
) -> Iterator[StatusTable]:  # fmt: skip
    """Register a job in a folder and yield the folder's table; or refuse, and leave everything as it was.

    Jobs that resume may be at work together. A job that does not resume must find no other at work. At the end the
    tables of all jobs are written and, unless this job was interrupted, ``report`` is called.
    """
    hidden = output / _HIDDEN
    make_folder(output)
    make_folder(hidden)
    mine = hidden / f"job-{secrets.token_hex(8)}.lock"
    with contextlib.ExitStack() as work:
        with locked(hidden / "start.lock"):
            table = StatusTable(output, settings)
            if resume:
                _check_settings(table, default_mask)
            else:
                refuse_others(output)
                _make_room(output, scans, overwrite=overwrite, healed=healed, viewer=viewer)
            if not locks_of_others(hidden):
                for left in output.rglob(".skmimood-*.tmp"):
                    left.unlink(missing_ok=True)  # of a job that was ended by force
            work.enter_context(claimed(mine))
            # The next job finds the settings, even before the first scan has been scored.
            with table.shared():
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
    if locks := locks_of_others(output / _HIDDEN):
        raise InputError(
            f"Another job is at work in {str(output)!r} and holds {_HIDDEN}/{locks[0].name}. Wait for its end, add "
            "--resume to share the work with it, or choose another folder."
        )


def holds_results(output: Path) -> bool:
    """Tell whether an earlier job has left results that `opened` with ``overwrite`` would remove."""
    return any(os.path.lexists(output / name) for name in TABLES)


def pictures_of(output: Path, scan: str) -> Path:
    """Return the file that keeps the most anomalous slices of a scan."""
    return output / _HIDDEN / (output_stem(scan) + ".npz")


def page_of(output: Path, scan: str) -> Path:
    """Return the page in which a scan is looked at."""
    stem = output_stem(scan)
    return output / f"{stem}{'_' if stem.casefold() == 'report' else ''}.html"


def wants_page(viewer: str, is_anomalous: bool | None) -> bool:
    """Tell whether a scan of this verdict gets a page."""
    return viewer == "all" or (viewer == "flagged" and bool(is_anomalous))


def mark_of(output: Path, scan: str) -> Path:
    """Return the file whose lock a job holds while it is at a scan."""
    return output / _HIDDEN / (output_stem(scan) + ".begun")


def discard(output: Path, scan: str) -> None:
    """Leave no results of a scan rather than a part of them."""
    paths = itertools.chain(*possible_paths(output, scan), _further_healed(output, scan))
    for path in (*paths, pictures_of(output, scan), page_of(output, scan)):
        path.unlink(missing_ok=True)


def _further_healed(output: Path, scan: str) -> list[Path]:
    return [path for extension in RESULT_EXTENSIONS for path in further_healed(output, scan, extension)]


def _check_settings(table: StatusTable, default_mask: str) -> None:
    """Raise `InputError` if earlier results come from other settings; old versions did not record the mask."""
    earlier = StatusTable.read(table.folder).settings
    before, now = (
        {"mask": default_mask, "bids": False, **settings} for settings in (earlier, table.settings)
    )
    for each in (before, now):
        each["mask"] = str(each["mask"]).removeprefix("_")  # "seg" and "_seg" name the same files
    changed = [name.replace("_", " ") for name in now | before if now.get(name) != before.get(name)]
    if changed and (table.folder / "status.json").exists():
        raise InputError(
            f"The results in {table.folder.name!r} come from another {', '.join(changed)}. "
            "Score into another folder, or use --overwrite to start anew."
        )


def _make_room(output: Path, scans: Collection[str], *, overwrite: bool, healed: bool, viewer: str) -> None:
    """Remove earlier results, so that none stays beside a status without it, or refuse to."""
    if not overwrite:
        results = [output / name for name in TABLES]
        for scan in scans:
            results += itertools.chain(*possible_paths(output, scan, healed=healed))
            results += _further_healed(output, scan) if healed else ()
        results += [page_of(output, scan) for scan in scans if viewer != "none"]
        existing = [path.name for path in results if os.path.lexists(path)]
        if existing:
            raise InputError(
                f"{str(output)!r} holds results already, such as {existing[0]!r}. Pass --resume to do the scans "
                "that are missing, --overwrite to start anew, or choose another folder."
            )
        return
    # Each scored scan has pictures, so results are found beside a damaged status too.
    scored = {file.stem for file in (output / _HIDDEN).glob("*.npz")}
    is_damaged = False
    try:
        scored |= {outcome.id for outcome in StatusTable.read(output).outcomes}
    except InputError:
        is_damaged = True
    for scan in scored:
        discard(output, scan)
    for name in TABLES if scored else ("status.json",):
        (output / name).unlink(missing_ok=True)
    endings = {ending.partition(".")[0] for ending in OUTPUTS}
    left = sorted(file.name for ending in endings for file in output.glob(f"*{ending}.*"))
    if is_damaged and left:
        warn(
            f"status.json in {str(output)!r} is damaged, so these files may be left of earlier results: "
            f"{listing(left)}. Remove them if they are."
        )


def _is_name(scan: str) -> bool:
    """Tell whether an id that was read is a file name and nothing more, so that paths may be made of it."""
    with contextlib.suppress(UnicodeError):
        return bool(output_stem(scan)) and Path(scan).name == scan != ".." and "\0" not in scan
    return False
