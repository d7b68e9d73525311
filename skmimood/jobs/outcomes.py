"""What became of each scan of a scoring job: the table behind ``status.json`` and ``scores.csv``."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from skmimood.exceptions import InputError
from skmimood.jobs.locks import locked
from skmimood.jobs.outputs import to_json, write
from skmimood.scans.results import image_paths, output_stem

HIDDEN = ".report"
"""Folder inside that of the results: what the report needs of each scan, and the locks of the jobs."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_FORMAT = "skmimood-status"


@dataclass(frozen=True)
class ScanOutcome:
    """What became of one scan."""

    id: str
    status: str
    """ "ok" or "failed". Never recorded are "kept", "busy" and "taken": another job of the folder has scored the scan,
    is at it, or has scored another file of this id."""
    score: float | None = None
    pvalue: float | None = None
    is_anomalous: bool | None = None
    """Whether the score exceeds the scan threshold; None if the scan failed or that threshold is infinite."""
    seconds: float = 0.0
    """Time from reading to writing."""
    flags: tuple[str, ...] = ()
    """Remarks on the scan's quality."""
    reason: str = ""
    """Why it failed."""
    digest: str = ""
    """Digest of the bytes of the scan and of its mask. Empty if an earlier version wrote the line."""

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> ScanOutcome:
        """Return an outcome of ``status.json``; raise ValueError, KeyError or TypeError if it is damaged."""
        score, pvalue = (None if line[name] is None else float(line[name]) for name in ("score", "pvalue"))
        verdict = None if line["is_anomalous"] is None else bool(line["is_anomalous"])
        flags, reason = tuple(map(str, line["flags"])), str(line["reason"])
        seconds, digest = float(line["seconds"]), str(line.get("digest", ""))
        return cls(
            str(line["id"]), str(line["status"]), score, pvalue, verdict, seconds, flags, reason, digest
        )

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

    Several jobs may write to it: each reads what the others have recorded, under a lock, before it writes.
    ``settings`` are what the results depend on besides the scans: model, thresholds, volume and mask.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], outcomes: Iterable[ScanOutcome] = ()) -> None:
        self.folder = folder
        self.settings = json.loads(to_json(settings))  # as they will read after a round trip
        self._outcomes = {outcome.id: outcome for outcome in outcomes}
        self._n_scans = 0  # that all jobs so far were asked for
        self.refused: list[ScanOutcome] = []
        """Scans of this job that were not scored, since another job uses their ids for other files."""

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

    @classmethod
    def resume(cls, folder: Path, settings: dict[str, Any], default_mask: str) -> StatusTable:
        """Open the table of an earlier run as `read` does; raise `InputError` if it was written with other settings.

        ``default_mask`` is the mask of the model, which earlier versions did not record.
        """
        table, earlier = cls(folder, settings), cls.read(folder)
        before, now = ({"mask": default_mask, **each.settings} for each in (earlier, table))
        for each in (before, now):
            each["mask"] = str(each["mask"]).removeprefix("_")  # "seg" and "_seg" name the same files
        changed = [name.replace("_", " ") for name in now | before if now.get(name) != before.get(name)]
        if changed and (folder / "status.json").exists():
            raise InputError(
                f"The results in {folder.name!r} come from another {', '.join(changed)}. "
                "Score into another folder, or use --overwrite to start anew."
            )
        table._outcomes, table._n_scans = earlier._outcomes, earlier._n_scans
        return table

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

    def is_finished(self, scan: str, *, healed: bool = False) -> bool:
        """Tell whether a scan succeeded and its images, with ``healed`` the healed scan too, are still there."""
        outcome, images = self._outcomes.get(scan), image_paths(self.folder, scan, healed=healed)
        return outcome is not None and outcome.status == "ok" and all(map(Path.is_file, images))

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Read what other jobs have recorded; none of them writes meanwhile."""
        with locked(self.folder / HIDDEN / "status.lock"):
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
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        columns = [field.name for field in fields(ScanOutcome) if field.name != "digest"]
        writer.writerow(columns)
        for outcome in self.outcomes:
            writer.writerow([_cell(getattr(outcome, column)) for column in columns])
        write(self.folder / "scores.csv", table.getvalue())


def _is_name(scan: str) -> bool:
    """Tell whether an id that was read is a file name and nothing more, so that paths may be made of it."""
    with contextlib.suppress(UnicodeError):
        return bool(output_stem(scan)) and Path(scan).name == scan != ".." and "\0" not in scan
    return False


def _cell(value: Any) -> Any:
    """Return a table cell; text that a spreadsheet would take for a formula gets a leading quote."""
    if isinstance(value, tuple):
        value = "; ".join(value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value
