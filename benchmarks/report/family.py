"""One table of all methods: their papers, what they published, what is reached here, and why that may differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean

from benchmarks import records
from benchmarks.protocol.methods import title
from benchmarks.report.results import Rows, Run, matching
from benchmarks.report.tables import form, markdown

FAMILY = Path(__file__).parents[1] / "family.csv"
_SOURCES = ("lgg-cv", "lgg")  # the first that has a method tells of it


def family_table(runs: Sequence[Run], published: Rows) -> Iterator[str]:
    """Return heading, explanation and table of all methods in preset tiny on the CPU."""
    tiny = {run.dataset: run for run in runs if run.preset == "tiny" and run.device.startswith("CPU")}
    header = ["method", "paper", "published: best Dice / AP / AUROC", "ours: best Dice / AP / AUROC"]
    header += ["seconds of fit", "s per 32 slices", "what may explain the difference"]
    lines = []
    for row in records.read_table(FAMILY):
        name = row["method"]
        reached = _reached(tiny, name)
        lines.append([title(name), row["paper"], _published(published, name), *reached, row["difference"]])
    yield "### The family: what was published and what is reached here"
    yield (
        "Published figures are of other data and sizes (see below). Ours are of tumour slices of LGG in preset `tiny`, "
        "cross-validated, or where a † stands of its single split, means over its seeds. Seconds of fit are means over "
        "folds or seeds, some of them on a core shared with other work. Those of the denoising autoencoder and of "
        "student and teacher lack the network that reverse distillation, run before, had trained for all three."
    )
    yield markdown(header, lines)


def _published(published: Rows, name: str) -> str:
    rows = matching(published, {"method": name, "level": "pixel"}) or matching(published, {"method": name})
    cells = [" / ".join(row[metric] or "-" for metric in ("best_dice", "ap", "auroc")) for row in rows]
    marks = ["" if row["level"] == "pixel" else f" ({row['level']}s)" for row in rows]
    return "; ".join(cell + mark for cell, mark in zip(cells, marks, strict=True)) or "none known to us"


def _reached(runs: Mapping[str, Run], name: str) -> list[str]:
    for source in _SOURCES:
        run = runs.get(source)
        if run is None or name not in run.methods:
            continue
        mark = "" if run.n_folds else "†"
        figures = " / ".join(form(run.mean(name, metric), ".3f") for metric in ("best_dice", "ap", "auroc"))
        fits = [
            float(row["fit_seconds"]) for row in matching(run.runs, {"method": name}) if row["fit_seconds"]
        ]
        return [
            f"{figures}{mark}",
            form(mean(fits) if fits else None, ".0f"),
            form(run.mean(name, "seconds_per_32"), ".2g"),
        ]
    return ["no figures yet", "", ""]
