"""Tables and figures of speed: `speed`, `pareto` and `scaling`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.protocol import ledger
from benchmarks.protocol.methods import title
from benchmarks.report import figures
from benchmarks.report.figures import exponent
from benchmarks.report.results import Rows, matching
from benchmarks.report.tables import form, markdown

COHORT = 10_000
NODES = (1, 8, 64)
_GROWN = "grow_"
_PRECISIONS = ("float32", "bfloat16")

Record = Mapping[str, Any]


def render(results: Path, base: Path) -> str:
    """Draw the figures of speed and return the Markdown of its tables, for a file in the folder ``base``."""
    renderers = {"speed_*.json": _speed, "*_pareto.csv": _pareto, "scaling_*.json": _scaling}
    found = [(of, path) for pattern, of in renderers.items() for path in sorted(results.glob(pattern))]
    return "\n\n".join(part for of, path in found for part in of(path, base)) or "No results yet."


def _speed(path: Path, base: Path) -> Iterator[str]:
    measured = records.read_json(path, [])
    grown = [record for record in measured if record["name"].startswith(_GROWN)]
    named = [record for record in measured if not record["name"].startswith(_GROWN)]
    told = {
        key: ", ".join(dict.fromkeys(str(record[key]) for record in measured))
        for key in ("preset", "image_size", "device", "threads", "commit")
    }
    yield (
        f"### Speed: preset {told['preset']}, {told['image_size']} pixels, {told['device']}, {told['threads']} "
        f"thread(s), commit {told['commit']}"
    )
    if named:
        yield table(named)
    if grown:
        points = series(grown)
        header = ["", "values", "exponent", "of the floor", "peak memory, first to last"]
        lines = [[name, *_grown(of)] for name, of in points.items()]
        yield f"**Cost grows as a power of each**\n\n{markdown(header, lines)}"
        yield figures.draw_growth(points, base, path.stem)


def table(measured: Sequence[Record]) -> str:
    """Return records as a Markdown table."""
    header = ["name", "seconds", "per", "ratio", "peak memory", "remarks"]
    lines = []
    for record in measured:
        ratio = "" if record["ratio"] is None else f"{record['ratio']:.3g} x {record['ratio_to']}"
        memory = record.get("peak_memory_bytes")
        size = "" if memory is None else f"{memory / 1e9:.2f} GB"
        remarks = "; ".join(_remarks(record))
        lines.append([f"`{record['name']}`", f"{record['seconds']:.3g}", record["per"], ratio, size, remarks])
    return markdown(header, lines)


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


def series(grown: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the points of each series, by value."""
    ordered = sorted(grown, key=lambda point: point["value"])
    names = dict.fromkeys(point["series"] for point in grown)
    return {name: [point for point in ordered if point["series"] == name] for name in names}


def _grown(points: Sequence[Record]) -> list[str]:
    values = [point["value"] for point in points]
    powers = [exponent(values, [point[key] for point in points]) for key in ("seconds", "floor_seconds")]
    memory = [points[end]["peak_memory_bytes"] for end in (0, -1)]
    told = "" if None in memory else " to ".join(f"{amount / 1e9:.2f} GB" for amount in memory)
    return [f"{values[0]:g} to {values[-1]:g}", *(f"{power:.2f}" for power in powers), told]


def _pareto(path: Path, base: Path) -> Iterator[str]:
    rows = records.read_table(path)
    for preset, device, seed in dict.fromkeys((row["preset"], row["device"], row["seed"]) for row in rows):
        chosen = matching(rows, {"preset": preset, "device": device, "seed": seed})
        data, commit = chosen[0]["dataset"], chosen[0]["commit"]
        points = [row for row in chosen if row["split"] == "val" and row["variant"] not in _PRECISIONS]
        yield f"### Accuracy against time: {data}, preset {preset}, {device}, seed {seed}, commit {commit}"
        yield f"The figures are of this commit; {ledger.sentence(chosen)}."
        yield _variants(points)
        yield figures.draw_pareto(points, base, f"{data}-{preset}-{device}-{seed}")
        yield from _compared_precisions(chosen)


def _variants(points: Rows) -> str:
    """Return the variants that no other one beats in both time and AP, the quickest first, and the defaults."""
    ordered = sorted(points, key=lambda row: (float(row["seconds_per_32"]), -float(row["ap"])))
    lines, best = [], 0.0
    for row in ordered:
        leads = float(row["ap"]) > best
        best = max(best, float(row["ap"]))
        is_default = row["is_default"] == "True"
        if leads or is_default or row["variant"] in ("uncached", "plain reading"):
            told = row["variant"] + ", as it comes" * is_default
            figures_ = [form(row["seconds_per_32"], ".3g"), form(row["ap"], ".3f")]
            lines.append([title(row["method"]), told, *figures_, "yes" * leads])
    header = ["method", "variant", "s per 32 slices", "AP, tumour slices of val"]
    return markdown([*header, "none is quicker and better"], lines)


def _compared_precisions(rows: Rows) -> Iterator[str]:
    found = {(row["method"], row["split"], row["variant"]): row for row in rows}
    lines = []
    for method, split, variant in found:
        if variant == "float32":
            pair = [found[method, split, precision] for precision in _PRECISIONS]
            dice = [float(row["best_dice"]) for row in pair]
            gaps = [f"{dice[0]:.4f}", f"{dice[1]:.4f}", f"{dice[1] - dice[0]:+.4f}"]
            lines.append([title(method), split, *gaps, *(form(row["seconds_per_32"], ".3g") for row in pair)])
    figures_ = ["best Dice, float32", "bfloat16", "difference", "s per 32, float32", "bfloat16"]
    if lines:
        yield f"**bfloat16 against float32, the same networks**\n\n{markdown(['method', 'split', *figures_], lines)}"


def _scaling(path: Path, _: Path) -> Iterator[str]:
    result = records.read_json(path, {})
    shape = "x".join(map(str, result["shape"]))
    yield (
        f"### Cohorts: scans of {shape}, preset {result['preset']}, {result['device']}, commit {result['commit']}\n\n"
        "`skmimood score --jobs N`. A node on paper is this machine: the start once, then scan after scan at the rate "
        "measured here; reading from a shared disk is not in it."
    )
    yield scaling_table(result)


def cohort_hours(measured: Record, n_nodes: int, n_scans: int = COHORT) -> float:
    """Return the hours in which nodes like the measured machine score a cohort: the start, then scan after scan."""
    rounds = math.ceil(n_scans / (n_nodes * measured["workers"]))
    return (measured["start_seconds"] + rounds * measured["seconds_per_scan"]) / 3600


def scaling_table(result: Record) -> str:
    """Return the measured rates, and hours and node hours of a cohort on paper, as Markdown."""
    header = ["workers", "scans", "s", "s per scan and worker", "scans per hour", "against one worker"]
    header += [f"{COHORT:,} scans on {n} node{'s' * (n > 1)}, on paper" for n in NODES]
    lines = []
    rates = [one["workers"] / one["seconds_per_scan"] for one in result["workers"]]
    for one, rate in zip(result["workers"], rates, strict=True):
        cells = [f"{one['seconds']:.1f}", f"{one['seconds_per_scan']:.2f}", f"{3600 * rate:.0f}"]
        hours = [(cohort_hours(one, n), n) for n in NODES]
        on_paper = [f"{hour:.3g} h ({hour * n:.3g} node hours)" for hour, n in hours]
        lines.append([str(one["workers"]), str(one["scans"]), *cells, f"{rate / rates[0]:.2f} x", *on_paper])
    return markdown(header, lines)
