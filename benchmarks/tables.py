"""The result files: CSV tables in which a run replaces its own rows and keeps those of others."""

from __future__ import annotations

import csv
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

RUN_KEY = ("dataset", "method", "seed", "preset", "device")
SUMMARY_KEY = ("dataset", "method", "preset", "device")
METRICS = ("best_dice", "ap", "auroc", "dice_at_val_threshold", "false_alarm_rate")
COLUMNS = (
    "dataset", "method", "seed", "split", "slices", "level", "region", *METRICS, "seconds_per_32", "device", "preset",
    "commit",
)  # fmt: skip
RUN_COLUMNS = (
    "dataset", "method", "seed", "preset", "device", "threads", "fit_seconds", "seconds_per_32_uncached", "parameters",
    "n_training_slices", "trained", "trained_code", "commit",
)  # fmt: skip
INTERVAL_COLUMNS = (
    "dataset", "method", "seeds", "preset", "device", "slices", "region", "metric", "mean", "low", "high",
)  # fmt: skip
DIFFERENCE_COLUMNS = (
    "dataset", "method", "minus", "seeds", "preset", "device", "slices", "region", "metric", "mean", "low", "high",
)  # fmt: skip
CURVE_COLUMNS = ("dataset", "method", "seed", "preset", "device", "slices", "region", "recall", "precision")


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def replace_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], key: Sequence[str] = RUN_KEY
) -> None:
    """Put ``rows`` into a table in place of those with the same ``key``; written at once, one writer at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The lock lies elsewhere, since it stays: the folder of the tables holds nothing but tables.
    with FileLock(Path(tempfile.gettempdir()) / f"{hashlib.sha1(bytes(path.resolve())).hexdigest()}.lock"):
        new = [{column: _text(row.get(column)) for column in columns} for row in rows]
        replaced = {tuple(row[column] for column in key) for row in new}
        kept = [row for row in read_table(path) if tuple(row[column] for column in key) not in replaced]
        temporary = path.with_name(f".{os.getpid()}-{path.name}")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            # Sorted by run, so that a table does not depend on the order of the runs; rows of a run stay in order.
            writer.writerows(sorted(kept + new, key=lambda row: tuple(row[column] for column in key)))
        os.replace(temporary, path)


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN: undefined
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])
