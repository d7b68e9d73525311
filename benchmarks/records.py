"""Result files: what was measured, on which machine, by which command and commit."""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def data_root(argument: str | None) -> Path:
    """Return the folder that holds ``ixi/``: the argument, else $SKMIMOOD_DATA, else ../shared/data."""
    root = Path(argument or os.environ.get("SKMIMOOD_DATA") or "../shared/data")
    if not root.is_dir():
        raise SystemExit(
            f"{root} is not a folder. Pass --root DIR or set SKMIMOOD_DATA to a folder with ixi/ (<subject>_T1.nii.gz, "
            "<subject>_brainmask.nii.gz, splits.csv), from https://brain-development.org/ixi-dataset/."
        )
    return root


def environment(device: str = "auto") -> dict[str, Any]:
    """Describe the code, and the machine if the run was on ``device``."""
    import torch

    from skmimood.runtime.device import resolve_device

    chosen = resolve_device(device)
    return {
        "command": "python -m benchmarks " + " ".join(_without_paths(sys.argv[1:])),
        "commit": commit(),
        "device": f"CPU ({platform.machine()})"
        if chosen.type == "cpu"
        else torch.cuda.get_device_name(chosen),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


@functools.cache
def commit() -> str:
    """Return the commit of the code, with "-dirty" if the code has changed since, as it is when first asked for.

    Results do not count as code. Without git, $BENCHMARK_COMMIT tells.
    """
    head = _git("rev-parse", "--short", "HEAD")
    if head is None:
        return os.environ.get("BENCHMARK_COMMIT", "unknown")
    written = [f":!{name}" for name in ("results", "figures", "README.md")] + [":(top,exclude)README.md"]
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *written)
    return f"{head}-dirty" if changed else head


def _git(*arguments: str) -> str | None:
    """Return what git says, None where there is no git or no repository."""
    try:
        said = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()


def _without_paths(arguments: list[str]) -> list[str]:
    """Put a placeholder for folders of this machine."""
    follows = [
        False,
        *(
            argument in ("--root", "--cache", "--model", "--healthy", "--slices", "--results", "--json")
            for argument in arguments
        ),
    ]
    return ["DIR" if is_path else argument for argument, is_path in zip(arguments, follows, strict=False)]


def write(name: str, record: dict[str, Any], device: str = "auto") -> None:
    """Write one result as JSON into ``results/`` and print it."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**record, **environment(device)}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
