"""Tables and figures of speed, out of the result files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.protocol import ledger
from benchmarks.protocol.methods import title
from benchmarks.report import figures
from benchmarks.report.figures import exponent
from benchmarks.report.tables import markdown

Record = Mapping[str, Any]

START, END = "<!-- speed:start -->", "<!-- speed:end -->"
_GROWN = "grow_"


def render(results: Path, folder: Path, base: Path) -> str:
    """Draw the figures of speed and return the Markdown of its tables; parameters as in `report.render`."""
    parts = [
        *(part for path in sorted(results.glob("speed_*.json")) for part in _speed(path, folder, base)),
        *(part for path in sorted(results.glob("*_pareto.csv")) for part in _pareto(path, folder, base)),
        *(part for path in sorted(results.glob("scaling_*.json")) for part in _scaling(path)),
    ]
    return "\n\n".join(parts) if parts else "No results yet."


def _speed(path: Path, folder: Path, base: Path) -> Iterator[str]:
    measured = json.loads(path.read_text())
    grown = [record for record in measured if record["name"].startswith(_GROWN)]
    named = [record for record in measured if not record["name"].startswith(_GROWN)]
    yield f"### Speed: {_told(measured)}"
    if named:
        yield table(named)
    if grown:
        figure = folder / f"{path.stem}-growth.png"
        points = series(grown)
        figures.draw_growth(points, figure)
        header = ["", "values", "exponent", "of the floor", "peak memory, first to last"]
        lines = [[name, *_grown(of)] for name, of in points.items()]
        yield f"**Cost grows as a power of each**\n\n{markdown(header, lines)}"
        yield figures.link("Seconds over each of the five, and the floor", figure, base)


def _told(measured: Sequence[Mapping[str, Any]]) -> str:
    def all_of(key: str) -> str:
        return ", ".join(dict.fromkeys(str(record[key]) for record in measured))

    return (
        f"preset {all_of('preset')}, {all_of('image_size')} pixels, {all_of('device')}, {all_of('threads')} thread(s), "
        f"commit {all_of('commit')}"
    )


def series(grown: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the points of each series, by value."""
    found = {
        name: [point for point in grown if point["series"] == name]
        for name in dict.fromkeys(point["series"] for point in grown)
    }
    return {name: sorted(of, key=lambda point: point["value"]) for name, of in found.items() if of}


def _grown(points: Sequence[Mapping[str, Any]]) -> list[str]:
    values = [point["value"] for point in points]
    powers = [exponent(values, [point[key] for point in points]) for key in ("seconds", "floor_seconds")]
    memory = [points[end]["peak_memory_bytes"] for end in (0, -1)]
    told = "" if None in memory else " to ".join(f"{amount / 1e9:.2f} GB" for amount in memory)
    return [f"{values[0]:g} to {values[-1]:g}", *(f"{power:.2f}" for power in powers), told]


def _pareto(path: Path, folder: Path, base: Path) -> Iterator[str]:
    rows = records.read_table(path)
    for preset, device, seed in dict.fromkeys((row["preset"], row["device"], row["seed"]) for row in rows):
        same = {"preset": preset, "device": device, "seed": seed}
        chosen = [row for row in rows if same.items() <= row.items()]
        data = chosen[0]["dataset"]
        figure = folder / f"{figures.slug(f'{data}-{preset}-{device}-{seed}')}-pareto.png"
        points = [
            row for row in chosen if row["split"] == "val" and row["variant"] not in ("float32", "bfloat16")
        ]
        figures.draw_pareto(points, figure)
        yield f"### Accuracy against time: {data}, preset {preset}, {device}, seed {seed}, commit {chosen[0]['commit']}"
        yield f"The figures are of this commit; {ledger.sentence(chosen)}."
        yield _variants(points)
        yield figures.link("AP over seconds per 32 slices; a star is the method as it comes", figure, base)
        yield from _precisions(chosen)


def _variants(points: Sequence[Mapping[str, str]]) -> str:
    """Return the variants that no other one beats in both time and AP, the quickest first, and the defaults."""
    ordered = sorted(points, key=lambda row: (float(row["seconds_per_32"]), -float(row["ap"])))
    lines, best = [], 0.0
    for row in ordered:
        leads = float(row["ap"]) > best
        best = max(best, float(row["ap"]))
        if leads or row["is_default"] == "True" or row["variant"] in ("uncached", "plain reading"):
            told = row["variant"] + (", as it comes" if row["is_default"] == "True" else "")
            lines.append([
                title(row["method"]), told, f"{float(row['seconds_per_32']):.3g}", f"{float(row['ap']):.3f}",
                "yes" if leads else "",
            ])  # fmt: skip
    header = [
        "method",
        "variant",
        "s per 32 slices",
        "AP, tumour slices of val",
        "none is quicker and better",
    ]
    return markdown(header, lines)


def _precisions(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    lines = []
    for row in rows:
        if row["variant"] != "float32":
            continue
        other = next(
            one
            for one in rows
            if one["variant"] == "bfloat16" and all(one[k] == row[k] for k in ("method", "split"))
        )
        lines.append([title(row["method"]), row["split"], *_compared(row, other)])
    if lines:
        header = [
            "method",
            "split",
            "best Dice, float32",
            "bfloat16",
            "difference",
            "s per 32, float32",
            "bfloat16",
        ]
        yield f"**bfloat16 against float32, the same networks**\n\n{markdown(header, lines)}"


def _compared(exact: Mapping[str, str], rounded: Mapping[str, str]) -> list[str]:
    dice = [float(row["best_dice"]) for row in (exact, rounded)]
    seconds = [f"{float(row['seconds_per_32']):.3g}" for row in (exact, rounded)]
    return [f"{dice[0]:.4f}", f"{dice[1]:.4f}", f"{dice[1] - dice[0]:+.4f}", *seconds]


def _scaling(path: Path) -> Iterator[str]:
    result = json.loads(path.read_text())
    shape = "x".join(map(str, result["shape"]))
    yield (
        f"### Cohorts: scans of {shape}, preset {result['preset']}, {result['device']}, commit {result['commit']}\n\n"
        "`skmimood score --jobs N`. A node on paper is this machine: the start once, then scan after scan at the rate "
        "measured here; reading from a shared disk is not in it."
    )
    yield scaling_table(result)


def table(measured: Sequence[Record]) -> str:
    """Return records as a Markdown table."""
    header = ["name", "seconds", "per", "ratio", "peak memory", "remarks"]
    return markdown(header, [_line(record) for record in measured])


def _line(record: Record) -> list[str]:
    ratio = "" if record["ratio"] is None else f"{record['ratio']:.3g} x {record['ratio_to']}"
    memory = record.get("peak_memory_bytes")
    return [
        f"`{record['name']}`", f"{record['seconds']:.3g}", record["per"], ratio,
        "" if memory is None else f"{memory / 1e9:.2f} GB", "; ".join(_remarks(record)),
    ]  # fmt: skip


def _remarks(record: Record) -> Iterator[str]:
    if "floor_seconds" in record:
        yield f"floor {record['floor_seconds']:.3g} s"
    if "share_of_tokens" in record:
        yield f"{record['share_of_tokens']:.0%} of the tokens, those on the head"
    if "n_restorations" in record:
        yield f"the preset as it comes: R = {record['n_restorations']}, T = {record['n_steps']}"
    if "measured_share" in record:
        yield f"{record['measured_share']:.1%} of the passes measured"
    if "share_of_matmul" in record:
        yield f"{record['images_per_second']:.3g} images/s"
        rate = record["matmul_flops"] / 1e12
        yield f"{record['share_of_matmul']:.0%} of the {rate:.3g} TFLOP/s of a large matrix product here"
    if "equal_maps" in record and record["name"] == "grid_80_path":
        yield "maps equal but for rounding" if record["equal_maps"] else "MAPS DIFFER"


COHORT = 10_000


NODES = (1, 8, 64)


def cohort_hours(measured: Mapping[str, Any], n_nodes: int, n_scans: int = COHORT) -> float:
    """Return the hours in which nodes like the measured machine score a cohort: the start, then scan after scan."""
    rounds = math.ceil(n_scans / (n_nodes * measured["workers"]))
    return (measured["start_seconds"] + rounds * measured["seconds_per_scan"]) / 3600


def scaling_table(result: Mapping[str, Any]) -> str:
    """Return the measured rates, and hours and node hours of a cohort on paper, as Markdown."""
    header = ["workers", "scans", "s", "s per scan and worker", "scans per hour", "against one worker"]
    header += [f"{COHORT:,} scans on {n} node{'s' * (n > 1)}, on paper" for n in NODES]
    return markdown(header, [_scaling_line(measured, result["workers"]) for measured in result["workers"]])


def _scaling_line(measured: Mapping[str, Any], all_measured: Sequence[Mapping[str, Any]]) -> list[str]:
    first = all_measured[0]
    rates = [one["workers"] / one["seconds_per_scan"] for one in (measured, first)]
    cells = [
        str(measured["workers"]), str(measured["scans"]), f"{measured['seconds']:.1f}",
        f"{measured['seconds_per_scan']:.2f}", f"{3600 * rates[0]:.0f}", f"{rates[0] / rates[1]:.2f} x",
    ]  # fmt: skip
    hours = [cohort_hours(measured, n) for n in NODES]
    return cells + [f"{one:.3g} h ({one * n:.3g} node hours)" for one, n in zip(hours, NODES, strict=True)]
