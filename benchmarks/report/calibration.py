"""The table and the figure of rates of false positives among healthy subjects that nobody has seen."""

from __future__ import annotations

from pathlib import Path

from benchmarks import records
from benchmarks.protocol.calibration import LEVELS
from benchmarks.report import figures
from benchmarks.report.tables import markdown


def render(results: Path, base: Path | None = None) -> str:
    """Return the Markdown of the table; with ``base``, draw the figure for a file in that folder too."""
    rows = records.read_table(results / "calibration.csv")
    if not rows:
        return "No results yet."
    first = rows[0]
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    parts = [
        f"{first['cohort']}; {first['n_subjects']} subjects, each tested by networks that never saw it, and "
        f"{first['n_draws']} draws of those that set the thresholds. Mean rate, its 95 % interval, and in brackets the "
        f"least and the most of single draws. Commit {commits}."
    ]
    for level in LEVELS:
        told = {(row["n_calibration"], row["asked"]): row for row in rows if row["level"] == level}
        sizes, asked = (sorted({key[i] for key in told}, key=float) for i in (0, 1))
        header = [f"{level}s: rate asked for", *(f"thresholds of {n} subjects" for n in sizes)]
        parts.append(markdown(header, [[rate, *(_cell(told[n, rate]) for n in sizes)] for rate in asked]))
    if base is not None:
        parts.append(figures.draw_calibration(rows, base))
    return "\n\n".join(parts)


def _cell(row: dict[str, str]) -> str:
    rate, low, high, least, most = (float(row[name]) for name in ("rate", "low", "high", "lowest", "highest"))
    told = f"{rate:.3f}, {low:.3f} to {high:.3f} ({least:.3f} to {most:.3f})"
    attainable = float(row["attainable"])
    return told if attainable == float(row["asked"]) else f"{told}; attainable {attainable:.3f}"
