"""The table of scans that are flagged as unlike the training data."""

from __future__ import annotations

from pathlib import Path

from benchmarks import records
from benchmarks.report.tables import form, markdown

N_DRAWS = 10  # of the scans that are fitted on


def render(results: Path) -> str:
    """Return the Markdown of the table: a line for each kind of scan, a column for each model."""
    rows = sorted(records.read_table(results / "domain.csv"), key=lambda row: int(row["n_fit"]))
    models = dict.fromkeys((row["cohort"], row["n_fit"]) for row in rows)
    told = {(row["cohort"], row["n_fit"], row["kind"]): row["flagged"] for row in rows}
    kinds = dict.fromkeys(row["kind"] for row in rows)
    lines = [[kind, *(form(told.get((*model, kind)), ".1%") for model in models)] for kind in kinds]
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    header = ["share flagged", *(f"{cohort}, {n_fit} scans" for cohort, n_fit in models)]
    told_of = f"Mean over {N_DRAWS} draws of the scans that are fitted on; commit {commits}."
    return f"{told_of}\n\n{markdown(header, lines)}"
