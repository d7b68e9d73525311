"""Result files: what was measured, on which machine, by which command and commit."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def data_root(argument: str | None) -> Path:
    """Return the folder that holds ``lgg/`` and ``ixi/``: the argument, else $SKMIMOOD_DATA, else ../shared/data."""
    root = Path(argument or os.environ.get("SKMIMOOD_DATA") or "../shared/data")
    if not root.is_dir():
        raise SystemExit(
            f"{root} is not a folder. Pass --root DIR or set SKMIMOOD_DATA to a folder with lgg/ (TCGA-LGG FLAIR: "
            "<subject>/<subject>_flair.nii.gz, <subject>_seg.nii.gz, splits.csv) and ixi/ (<subject>_T1.nii.gz, "
            "<subject>_brainmask.nii.gz, splits.csv)."
        )
    return root


def subjects(folder: Path, split: str) -> list[str]:
    """Return the subjects of one split of ``folder/splits.csv``."""
    with (folder / "splits.csv").open() as file:
        return [row["subject"] for row in csv.DictReader(file) if row["split"] == split]


def environment(device: str = "auto") -> dict[str, Any]:
    """Describe the code, and the machine if the run was on ``device``."""
    import torch

    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    on_gpu = torch.cuda.is_available() and device != "cpu"
    return {
        "command": "python -m benchmarks " + " ".join(_without_paths(sys.argv[1:])),
        "commit": commit.stdout.strip(),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _without_paths(arguments: list[str]) -> list[str]:
    """Put a placeholder for folders of this machine."""
    follows = [False, *(argument in ("--root", "--cache", "--model") for argument in arguments)]
    return ["DIR" if is_path else argument for argument, is_path in zip(arguments, follows, strict=False)]


def write(name: str, record: dict[str, Any], device: str = "auto") -> None:
    """Write one result as JSON into ``results/`` and print it."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**record, **environment(device)}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
