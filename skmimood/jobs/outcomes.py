"""What became of each scan of a scoring job: the table behind ``status.json`` and ``scores.csv``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from skmimood.exceptions import InputError
from skmimood.jobs.outputs import to_json, write_json, write_text
from skmimood.volumes.results import OUTPUTS, image_paths, output_stem

__all__ = ["OUTPUTS", "ScanOutcome", "StatusTable", "output_stem"]

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_FORMAT = "skmimood-status"


@dataclass(frozen=True)
class ScanOutcome:
    """What became of one scan.

    Attributes
    ----------
    id : str
        The scan's name without extension.
    status : {"ok", "failed"}
        Whether its results are there.
    score, pvalue : float or None
        As in :class:`skmimood.volumes.ScanResult`; None if it failed.
    is_anomalous : bool or None
        Whether the score exceeded the scan threshold; None if it failed or that threshold is infinite.
    seconds : float
        Time from reading to writing.
    flags : tuple of str
        Remarks on the scan's quality.
    reason : str
        Why it failed.
    """

    id: str
    status: str
    score: float | None = None
    pvalue: float | None = None
    is_anomalous: bool | None = None
    seconds: float = 0.0
    flags: tuple[str, ...] = ()
    reason: str = ""

    @property
    def verdict(self) -> str:
        """What to say of the scan in two words."""
        if self.status != "ok":
            return "failed"
        if self.is_anomalous is None:
            return "no verdict"
        return "anomalous" if self.is_anomalous else "not anomalous"


class StatusTable:
    """The outcomes of a job in a folder, written anew after each scan.

    Parameters
    ----------
    folder : Path
        Where ``status.json`` and ``scores.csv`` go.
    settings : dict
        What the results depend on besides the scans: model and thresholds.
    outcomes : iterable of ScanOutcome
        Of an earlier run.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], outcomes: Iterable[ScanOutcome] = ()) -> None:
        self.folder = folder
        self.settings = json.loads(to_json(settings))  # as they will read after a round trip
        self._outcomes = {outcome.id: outcome for outcome in outcomes}

    @classmethod
    def read(cls, folder: Path) -> StatusTable:
        """Open the table of an earlier run, an empty one if there was none.

        Raises
        ------
        InputError
            If it is damaged.
        """
        file = folder / "status.json"
        if not file.exists():
            return cls(folder, {})
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError("another format")
            return cls(folder, content["settings"], [_outcome(line) for line in content["scans"]])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{file.name} in {folder.name!r} cannot be resumed from ({error}). "
                "Use --overwrite to start anew."
            ) from None

    @classmethod
    def resume(cls, folder: Path, settings: dict[str, Any]) -> StatusTable:
        """Open the table of an earlier run to go on with it, an empty one if there was none.

        Raises
        ------
        InputError
            If it is damaged or was written with another model, thresholds or volume.
        """
        earlier = cls.read(folder)
        table = cls(folder, settings, earlier.outcomes)
        if (folder / "status.json").exists() and earlier.settings != table.settings:
            raise InputError(
                f"The results in {folder.name!r} come from another model, other thresholds, masks or another volume. "
                "Score into another folder, or use --overwrite to start anew."
            )
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

    def is_finished(self, scan: str, *, healed: bool = False) -> bool:
        """Tell whether a scan succeeded and its images, with ``healed`` the healed scan too, are still there."""
        outcome, images = self._outcomes.get(scan), self.images(scan, healed=healed)
        return outcome is not None and outcome.status == "ok" and all(map(Path.is_file, images))

    def images(self, scan: str, *, healed: bool = False) -> list[Path]:
        """Return the paths of a scan's anomaly map, p-value map and mask, with ``healed`` of the healed scan too."""
        return image_paths(self.folder, scan, healed=healed)

    def record(self, outcome: ScanOutcome, *, n_scans: int) -> None:
        """Note what became of a scan, and write ``status.json``."""
        self._outcomes[outcome.id] = outcome
        self.write("running", n_scans=n_scans)

    def write(self, state: str, *, n_scans: int) -> None:
        """Write ``status.json``; ``state`` is "running", "interrupted" or "done"."""
        content = {
            "format": _FORMAT,
            "state": state,
            "n_scans": n_scans,
            "n_ok": len(self) - self.n_failed,
            "n_failed": self.n_failed,
            "settings": self.settings,
            "scans": [asdict(outcome) for outcome in self._outcomes.values()],
        }
        write_json(self.folder / "status.json", content)

    def write_scores(self) -> None:
        """Write ``scores.csv``."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow([field.name for field in fields(ScanOutcome)])
        for outcome in self.outcomes:
            writer.writerow([_cell(value) for value in vars(outcome).values()])
        write_text(self.folder / "scores.csv", table.getvalue())


def _outcome(line: dict[str, Any]) -> ScanOutcome:
    numbers = {name: None if line[name] is None else float(line[name]) for name in ("score", "pvalue")}
    return ScanOutcome(
        id=str(line["id"]),
        status=str(line["status"]),
        is_anomalous=None if line["is_anomalous"] is None else bool(line["is_anomalous"]),
        seconds=float(line["seconds"]),
        flags=tuple(str(flag) for flag in line["flags"]),
        reason=str(line["reason"]),
        **numbers,
    )


def _cell(value: Any) -> Any:
    """Return a table cell; text that a spreadsheet would take for a formula gets a leading quote."""
    if isinstance(value, tuple):
        value = "; ".join(value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value
