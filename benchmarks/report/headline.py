"""The few figures that the project's README shows, out of the result files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import records
from benchmarks.protocol import ledger
from benchmarks.report.results import DATA_TITLES, Run, is_secondary, load_runs
from benchmarks.report.tables import Columns, by_method, form, markdown


def headline(results: Path) -> str:
    """Return the Markdown of the README's tables: lesions first, then time and memory."""
    return "\n\n".join([*_lesions(results), *_demo(results), *_speed(results), *_limits(results)])


def _lesions(results: Path) -> Iterator[str]:
    runs = load_runs(results)
    for run in runs:
        if run.dataset == "phantom" or is_secondary(run, runs):
            continue
        seeds = len({row["seed"] for row in run.rows if row["method"] in ("mimood", "mimood-default")})
        columns: Columns = {
            "best Dice": partial(run.cell, metric="best_dice"), "AP": partial(run.cell, metric="ap"),
            "AUROC": partial(run.cell, metric="auroc"),
            "s per 32 slices": partial(_seconds, run),
        }  # fmt: skip
        tested, option = (
            ("Slices of all patients", f" --folds {run.n_folds}") if run.n_folds else ("Test slices", "")
        )
        yield (
            f"{tested} with a lesion, all pixels; preset `{run.preset}`, {run.device}, {seeds} seed(s), one where "
            f"no ± follows (`python -m benchmarks accuracy --data {run.dataset.removesuffix('-cv')}{option}`; "
            f"{ledger.sentence(run.runs)}):\n\n"
            f"{by_method(run.methods, columns, DATA_TITLES[run.dataset])}"
        )


def _seconds(run: Run, method: str) -> str:
    return form(run.mean(method, "seconds_per_32"), ".2g")


def _demo(results: Path) -> Iterator[str]:
    told = records.read_json(results / "demo.json", {})
    if not told:
        return
    methods, rows = ("skmimood", "intensity"), []
    for region, pixels in (("all", "all pixels"), ("brain", "brain pixels")):
        for metric, name in (("auroc", "AUROC"), ("ap_ratio", "AP over the base rate")):
            rows.append([f"{pixels}: {name}", *(f"{told[region][method][metric]:.3g}" for method in methods)])
    for kind, values in told["auroc_by_lesion"].items():
        rows.append([f"AUROC, {kind}", *(f"{values[method]:.2f}" for method in methods)])
    yield f"`make demo`, phantoms with mixed lesions:\n\n{markdown(['', 'skmimood', 'plain intensity'], rows)}"


def _speed(results: Path) -> Iterator[str]:
    rivals = {
        "mimood_whole_grid": "with the tokens off the head", "mimood_reference": "its plain reading, float32",
        "ar_r4_uncached": "AR without a cache",
        "ar_r4_cached": "AR with a key-value cache", "token_critic_r4": "MVTM + Token-Critic",
    }  # fmt: skip
    rows = []
    for path in sorted(results.glob("speed_*.json")):
        told = {record["name"]: record for record in records.read_json(path, [])}
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
    fit, volume = (records.read_json(results / f"{name}.json", {}) for name in ("ixi_tiny", "volume"))
    rows = []
    if fit:
        seconds, commit = fit["seconds"], fit["commit"]
        one = f"{seconds['score_one_scan_with_report']:.0f} s"
        rows.append(["`skmimood fit` of 90 IXI subjects", f"{seconds['fit'] / 60:.1f} min", commit])
        rows.append(["`skmimood score` of one 120x120x90 scan, with report", one, commit])
    if volume:
        size, commit = "x".join(map(str, volume["shape"])), volume["commit"]
        rows.append([f"scoring a {size} volume: peak memory", f"{volume['peak_memory_gb']} GB", commit])
        rows.append(["`import skmimood`", f"{volume['seconds']['import']} s", commit])
    if rows:
        yield markdown(["two CPU cores", "", "commit"], rows)
