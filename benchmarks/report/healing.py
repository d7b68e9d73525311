"""Tables and the figure of healing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks import records
from benchmarks.protocol import ledger
from benchmarks.protocol.healing import ALL, HEALTHY
from benchmarks.report import figures
from benchmarks.report.results import DATA_TITLES, Rows, matching
from benchmarks.report.tables import Columns, by_method, form

CASES = "healing_cases.npz"


def render(results: Path, base: Path) -> str:
    """Draw the figure of all ``results`` and return the Markdown of their tables, for a file in the folder ``base``."""
    rows = records.read_table(results / "healing.csv")
    parts: list[str] = []
    for dataset, preset, device in dict.fromkeys(
        (row["dataset"], row["preset"], row["device"]) for row in rows
    ):
        run = matching(rows, {"dataset": dataset, "preset": preset, "device": device})
        parts += [f"### {DATA_TITLES[dataset]}: preset {preset}, {device}", *_tables(run)]
    if (results / CASES).exists():
        with np.load(results / CASES, allow_pickle=False) as file:
            figures.draw_healing(file, base / "figures" / "healing.png")
        parts.append("![Before the lesion, scan, healed by each method](figures/healing.png)")
    return "\n\n".join(parts) or "No results yet."


def _tables(rows: Rows) -> Iterator[str]:
    seeds = ", ".join(sorted({row["seed"] for row in rows}, key=int))
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    yield f"Seeds {seeds}, means over them; healed at commit {commits}; {ledger.sentence(rows)}."
    cell = partial(_cell, rows)
    kinds = sorted({row["kind"] for row in rows} - {ALL, HEALTHY})
    methods = sorted(
        dict.fromkeys(row["method"] for row in rows),
        key=lambda name: float(cell(name, "change_left_median", ALL)),
    )
    share = partial(partial, cell, metric="change_left_median", spec=".2f")
    columns: Columns = {
        "median": share(kind=ALL), "mean": partial(cell, metric="change_left_mean", kind=ALL, spec=".2f"),
        **{kind: share(kind=kind) for kind in kinds},
    }  # fmt: skip
    yield "**Share of a lesion's change that is left: 0 is healed, 1 is the scan; over all lesions, medians by kind**"
    yield by_method(methods, columns)
    columns = {
        "PSNR off the lesion, dB": partial(cell, metric="psnr", kind=ALL, spec=".1f"),
        "SSIM": partial(cell, metric="ssim", kind=ALL, spec=".3f"),
        "PSNR of healthy slices, dB": partial(cell, metric="psnr", kind=HEALTHY, spec=".1f"),
        "SSIM of healthy slices": partial(cell, metric="ssim", kind=HEALTHY, spec=".3f"),
        "as the tokenizer sees them, dB": partial(cell, metric="psnr_seen", kind=HEALTHY, spec=".1f"),
        "painted off the head": partial(cell, metric="changed_off_head", kind=ALL, spec=".1%"),
    }  # fmt: skip
    yield "**What is left of the slice where there is no lesion, inside the head, and what is painted around it**"
    yield by_method(methods, columns)


def _cell(rows: Rows, method: str, metric: str, kind: str, spec: str = "") -> str:
    values = [
        float(row[metric]) for row in matching(rows, {"method": method, "kind": kind}) if row.get(metric)
    ]
    return form(mean(values) if values else None, spec)
