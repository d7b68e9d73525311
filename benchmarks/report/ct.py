"""The tables of head CT: which slices and patients have a haemorrhage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from benchmarks import records
from benchmarks.protocol import ledger
from benchmarks.protocol.diagnosis import ALL, LEVELS
from benchmarks.protocol.methods import title
from benchmarks.report.results import Rows, matching
from benchmarks.report.tables import form, markdown

_SUFFIXES = {"map": "", "classifier": ", its own score"}


def render(results: Path) -> str:
    """Return the Markdown of all tables."""
    rows, gaps = (records.read_table(results / f"{name}.csv") for name in ("ct", "ct_differences"))
    parts: list[str] = []
    for preset, device in dict.fromkeys((row["preset"], row["device"]) for row in rows):
        run = matching(rows, {"preset": preset, "device": device})
        parts += [f"### Head CT: preset {preset}, {device}", _told(run)]
        for split in dict.fromkeys(row["split"] for row in run):
            here = {"preset": preset, "device": device, "split": split}
            parts += [*_tables(split, matching(run, here)), *_gap_tables(split, matching(gaps, here))]
    return "\n\n".join(parts) or "No results yet."


def _told(rows: Rows) -> str:
    seeds = ", ".join(sorted({row["seed"] for row in rows}, key=int))
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    return (
        f"Seeds {seeds}: means over them, also of the ends of their intervals. Scored at commit {commits}; "
        f"{ledger.sentence(rows)}."
    )


def _tables(split: str, rows: Rows) -> Iterator[str]:
    for level in LEVELS:
        of_level = matching(rows, {"level": level})
        counts = {row["kind"]: row["n"] for row in of_level}
        kinds = [kind for kind in counts if kind != ALL]
        yield (
            f"**AUROC of the {counts[ALL]} {level}s of {split} with haemorrhage, and of those of each kind, against "
            f"the {of_level[0]['n_without']} without**"
        )
        header = ["method", "AUROC", "AP", *(f"{kind} ({counts[kind]})" for kind in kinds)]
        yield markdown(header, _lines(of_level, kinds))


def _lines(rows: Rows, kinds: list[str]) -> list[list[str]]:
    lines = []
    for method, score in dict.fromkeys((row["method"], row["score"]) for row in rows):
        same = matching(rows, {"method": method, "score": score})
        auroc, low, high, ap = (_mean(same, ALL, name) for name in ("auroc", "low", "high", "ap"))
        by_kind = (_mean(same, kind, "auroc") for kind in kinds)
        lines.append([title(method) + _SUFFIXES[score], f"{auroc} [{low}, {high}]", ap, *by_kind])
    return sorted(lines, key=lambda line: line[1], reverse=True)


def _mean(rows: Rows, kind: str, name: str) -> str:
    values = [float(row[name]) for row in matching(rows, {"kind": kind}) if row.get(name)]
    return form(mean(values) if values else None, ".3f")


def _gap_tables(split: str, gaps: Rows) -> Iterator[str]:
    columns = [(level, metric) for level in LEVELS for metric in ("auroc", "ap")]
    header = ["method", *(f"{level}s, {metric.upper()}" for level, metric in columns)]
    for ours in dict.fromkeys(row["method"] for row in gaps):
        lines = []
        of_ours = matching(gaps, {"method": ours})
        for rival, score in dict.fromkeys((row["minus"], row["score"]) for row in of_ours):
            line = [title(rival) + _SUFFIXES[score]]
            for level, metric in columns:
                wanted = {"minus": rival, "score": score, "level": level, "metric": metric}
                (row,) = matching(of_ours, wanted)
                middle, low, high = (form(row[name], "+.3f") for name in ("mean", "low", "high"))
                line.append(f"{middle} [{low}, {high}]")
            lines.append(line)
        yield f"**{title(ours)} minus each on {split}, with 95 % intervals over patients**"
        yield markdown(header, lines)
