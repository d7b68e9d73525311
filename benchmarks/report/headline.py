"""The few figures that the project's README shows, out of the result files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.protocol import ledger
from benchmarks.protocol.methods import title
from benchmarks.report.results import Run
from benchmarks.report.tables import markdown

START, END = "<!-- figures:start -->", "<!-- figures:end -->"
_PLACE = {"level": "pixel", "slices": "tumour", "region": "all", "split": "test"}


def headline(results: Path, runs: list[Run], titles: dict[str, str]) -> str:
    """Return the Markdown of the README's tables: lesions first, then time and memory."""
    return "\n\n".join([*_lesions(runs, titles), *_demo(results), *_speed(results), *_limits(results)])


def _lesions(runs: list[Run], titles: dict[str, str]) -> Iterator[str]:
    for run in runs:
        if run.dataset == "phantom":
            continue
        seeds = len({row["seed"] for row in run.rows if row["method"] == "mimood"})
        header = [titles[run.dataset], "best Dice", "AP", "AUROC", "s per 32 slices"]
        rows = []
        for name in run.methods:
            cells = [run.cell(name, metric, _PLACE) for metric in ("best_dice", "ap", "auroc")]
            seconds = run.mean(name, "seconds_per_32", _PLACE)
            rows.append([title(name), *cells, "" if seconds is None else f"{seconds:.2g}"])
        yield (
            f"Test slices with a lesion, all pixels; preset `{run.preset}`, {run.device}, {seeds} seed(s), one where "
            f"no ± follows (`python -m benchmarks accuracy --data {run.dataset}`; {ledger.sentence(run.runs)}):\n\n"
            f"{markdown(header, rows)}"
        )


def _demo(results: Path) -> Iterator[str]:
    told = _read(results / "demo.json")
    if not told:
        return
    rows = []
    for region, pixels in (("all", "all pixels"), ("brain", "brain pixels")):
        for metric, name in (("auroc", "AUROC"), ("ap_ratio", "AP over the base rate")):
            cells = [f"{told[region][method][metric]:.3g}" for method in ("skmimood", "intensity")]
            rows.append([f"{pixels}: {name}", *cells])
    for kind, values in told["auroc_by_lesion"].items():
        rows.append([f"AUROC, {kind}", *(f"{values[method]:.2f}" for method in ("skmimood", "intensity"))])
    yield f"`make demo`, phantoms with mixed lesions:\n\n{markdown(['', 'skmimood', 'plain intensity'], rows)}"


def _speed(results: Path) -> Iterator[str]:
    rivals = {
        "mimood_whole_grid": "with the tokens off the head", "mimood_reference": "its plain reading, float32",
        "ar_r4_uncached": "AR without a cache",
        "ar_r4_cached": "AR with a key-value cache", "token_critic_r4": "MVTM + Token-Critic",
    }  # fmt: skip
    rows = []
    for path in sorted(results.glob("speed_*.json")):
        told = {record["name"]: record for record in json.loads(path.read_text())}
        if "mimood_r4_t8" in told:
            ours = told["mimood_r4_t8"]
            machine = f"{ours['preset']}, {ours['tokens']} tokens, {ours['device']}, {ours['precision']}"
            ratios = [f"{told[name]['ratio']:.3g} x" if name in told else "" for name in rivals]
            rows.append([machine, f"{ours['seconds']:.3g} s per {ours['images']} slices", *ratios])
    if rows:
        yield (
            "Restoration with R = 4 and T = 8, and how much longer others take in the same run "
            f"(`python -m benchmarks speed`):\n\n{markdown(['preset', 'skmimood', *rivals.values()], rows)}"
        )


def _limits(results: Path) -> Iterator[str]:
    fit, volume = _read(results / "ixi_tiny.json"), _read(results / "volume.json")
    rows = []
    if fit:
        seconds = fit["seconds"]
        rows.append(["`skmimood fit` of 90 IXI subjects", f"{seconds['fit'] / 60:.1f} min", fit["commit"]])
        one = f"{seconds['score_one_scan_with_report']:.0f} s"
        rows.append(["`skmimood score` of one 120x120x90 scan, with report", one, fit["commit"]])
    if volume:
        size = "x".join(map(str, volume["shape"]))
        rows.append(
            [f"scoring a {size} volume: peak memory", f"{volume['peak_memory_gb']} GB", volume["commit"]]
        )
        rows.append(["`import skmimood`", f"{volume['seconds']['import']} s", volume["commit"]])
    if rows:
        yield markdown(["two CPU cores", "", "commit"], rows)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}
