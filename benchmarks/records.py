"""Result files: what was measured, on which machine, by which command and commit."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import operator
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

RESULTS = Path(__file__).parent / "results"
RUN_KEY = ("dataset", "method", "seed", "preset", "device")
SUMMARY_KEY = ("dataset", "method", "preset", "device")
METRICS = ("best_dice", "ap", "auroc", "dice_at_val_threshold", "false_alarm_rate")


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def replace_rows(path: Path, rows: Sequence[Mapping[str, Any]], key: Sequence[str] = RUN_KEY) -> None:
    """Put ``rows`` into a table in place of those with the same ``key``; written at once, one writer at a time."""
    key_of = operator.itemgetter(*key)
    # The lock lies elsewhere, since it stays: the folder of the tables holds nothing but tables.
    with FileLock(Path(tempfile.gettempdir()) / f"{hashlib.sha1(bytes(path.resolve())).hexdigest()}.lock"):
        old, new = read_table(path), [{name: _text(value) for name, value in row.items()} for row in rows]
        replaced = set(map(key_of, new))
        kept = [row for row in old if key_of(row) not in replaced]
        with replacing(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
            columns = dict.fromkeys(name for row in [*old[:1], *new] for name in row)
            writer = csv.DictWriter(text, [*columns], lineterminator="\n")
            writer.writeheader()
            # Sorted by run, so that a table does not depend on the order of the runs; rows of a run stay in order.
            writer.writerows(sorted(kept + new, key=key_of))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    with temporary.open("wb") as file:
        yield file
    os.replace(temporary, path)


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN: undefined
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def read_json(path: Path, default: Any) -> Any:
    """Return what a JSON file holds, ``default`` if there is none."""
    return json.loads(path.read_text()) if path.exists() else default


def write_json(path: Path, result: Mapping[str, Any], device: str = "auto") -> None:
    """Write one result as JSON, with the code and the machine, and print it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**result, **environment(device)}, indent=2)
    path.write_text(text + "\n")
    print(text)


def environment(device: str = "auto") -> dict[str, Any]:
    """Describe the command, the code and the machine of a run on ``device``."""
    import torch

    from skmimood.runtime.device import resolve_device

    chosen = resolve_device(device)
    is_cpu = chosen.type == "cpu"
    arguments = ["DIR" if os.sep in argument else argument for argument in sys.argv[1:]]
    return {
        "command": " ".join(["python -m benchmarks", *arguments]), "commit": commit(),
        "device": f"CPU ({platform.machine()})" if is_cpu else torch.cuda.get_device_name(chosen),
        "threads": torch.get_num_threads(), "python": platform.python_version(), "torch": torch.__version__,
    }  # fmt: skip


@functools.cache
def commit() -> str:
    """Return the commit when first asked for, "-dirty" if code changed since; without git, $BENCHMARK_COMMIT tells."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("BENCHMARK_COMMIT", "unknown")
    written = [":!results", ":!figures", ":!README.md", ":(top,exclude)README.md"]
    return f"{head}-dirty" if _git("status", "--porcelain", "-uno", "--", ":/", *written) else head


def _git(*arguments: str) -> str:
    git = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, cwd=RESULTS.parent)
    return git.stdout.strip()
