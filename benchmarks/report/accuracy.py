"""Tables and figures of accuracy, data set by data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean

from benchmarks import records
from benchmarks.data.gliomas import GRADES
from benchmarks.protocol import ledger
from benchmarks.protocol.methods import METHODS, n_candidates, title
from benchmarks.protocol.variants import VARIANTS
from benchmarks.report import figures
from benchmarks.report.family import family_table
from benchmarks.report.results import (
    DATA_TITLES,
    PIXELS,
    Place,
    Rows,
    Run,
    is_secondary,
    load_runs,
    matching,
    place_of,
)
from benchmarks.report.tables import Columns, by_method, form, markdown
from skmimood.datasets import LESION_KINDS

PUBLISHED = Path(__file__).parents[1] / "published.csv"
TRIED = PUBLISHED.with_name("tried.csv")
_METRICS = {
    "best_dice": "best Dice", "ap": "AP", "auroc": "AUROC", "dice_at_val_threshold": "Dice at val threshold",
}  # fmt: skip


def render(results: Path, base: Path) -> str:
    """Draw the figures of all ``results``; return their tables as Markdown, for a file in the folder ``base``."""
    published, runs = records.read_table(PUBLISHED), load_runs(results)
    parts: list[str] = []
    for run in runs:
        if is_secondary(run, runs):
            parts += brief_sections(run, published)
            continue
        parts += [*sections(run, published), figures.draw_bars(run, base), figures.draw_curves(run, base)]
        cases = results / f"{run.dataset}_{run.preset}_cases.npz"
        if cases.exists():
            parts.append(figures.draw_cases(cases, base))
    if not parts:
        return "No results yet."
    return "\n\n".join(
        [*parts, *family_table(runs, published), *_tried_table(), *_published_table(published)]
    )


def sections(run: Run, published: Rows) -> Iterator[str]:
    """Return heading and tables of one run as Markdown."""
    yield from _heading(run)
    yield from _pixel_tables(run, published)
    yield from _difference_tables(run)
    yield from _token_table(run, published)
    yield from _image_table(run, published)
    yield from _strata_table(
        run, "AP by lesion area (thirds of the test slices)", ["small", "medium", "large"]
    )
    yield from _strata_table(run, "AP by kind of lesion", [*LESION_KINDS, *GRADES])
    yield from _fold_table(run)
    yield from _run_table(run)
    yield from _ablation_table(run)


def brief_sections(run: Run, published: Rows) -> Iterator[str]:
    """Return the main tables of a run of which another says more."""
    yield from _heading(run)
    tables = [*_pixel_tables(run, published)]
    yield from (*tables[:2], *tables[4:6])  # without those of the region
    yield from _difference_tables(run)
    yield from _image_table(run, published)
    yield from _ablation_table(run)


def _heading(run: Run) -> Iterator[str]:
    seeds = sorted({row["seed"] for row in run.rows}, key=int)
    commits = sorted({commit for row in run.rows for commit in row["commit"].split()})
    yield f"### {DATA_TITLES[run.dataset]}: preset {run.preset}, {run.device}"
    yield (
        f"{_cross_validation(run)}Seeds {', '.join(seeds)}; scored at commit {', '.join(commits)}; "
        f"{ledger.sentence(run.runs)}. "
        "Mean ± standard deviation over seeds, where there is more than one, and in brackets the 95 % interval over "
        "patients."
    )


def _cross_validation(run: Run) -> str:
    return f"Cross-validated over all patients in {run.n_folds} folds. " if run.n_folds else ""


def _pixel_tables(run: Run, published: Rows) -> Iterator[str]:
    more: Columns = {
        "s per 32 slices": lambda method: form(run.mean(method, "seconds_per_32"), ".3g"),
        "published¹: Dice / AP / AUROC / s": _known(
            published, "pixel", "best_dice", "ap", "auroc", "seconds_per_32"
        ),
    }
    head = _METRICS | {"false_alarm_rate": "false alarms"}
    in_region, of_head, in_both = (
        place_of("pixel", region=run.region), place_of("pixel", "head"), place_of("pixel", "head", run.region)
    )  # fmt: skip
    for heading, columns in {
        "Pixels of tumour slices": _columns(run, _METRICS, PIXELS) | more,
        f"Pixels of tumour slices, {run.region} only": _columns(run, _METRICS, in_region),
        "Pixels of all head slices, tumour-free ones too": _columns(run, head, of_head),
        f"Pixels of all head slices, {run.region} only": _columns(run, head, in_both),
    }.items():
        yield from _headed(heading, by_method(run.methods, columns))


def _columns(run: Run, metrics: Mapping[str, str], place: Place) -> Columns:
    """Return the columns of figures over pixels, with intervals of all but the AUROC."""
    return {
        label: partial(run.cell, metric=metric, place=place, interval=metric != "auroc")
        for metric, label in metrics.items()
    }


def _difference_tables(run: Run) -> Iterator[str]:
    """Return what each of ours wins over each other method, on tumour and on head slices, by the same draws."""
    rows = matching(run.differences, {"region": "all"})
    for ours in dict.fromkeys(row["method"] for row in rows):
        told = {}
        for row in matching(rows, {"method": ours}):
            gap, low, high = (float(row[name]) for name in ("mean", "low", "high"))
            told[row["minus"], row["slices"], row["metric"]] = f"{gap:+.3f} [{low:+.3f}, {high:+.3f}]"
        columns: Columns = {
            f"{label}, {slices} slices": partial(_cell_of, told, slices, metric)
            for slices in ("tumour", "head")
            for metric, label in (("best_dice", "best Dice"), ("ap", "AP"))
        }
        methods = [method for method in run.methods if (method, "tumour", "ap") in told]
        yield from _headed(f"{title(ours)} minus each other method, all pixels", by_method(methods, columns))


def _cell_of(told: Mapping[tuple[str, str, str], str], slices: str, metric: str, method: str) -> str:
    return told.get((method, slices, metric), "")


def _token_table(run: Run, published: Rows) -> Iterator[str]:
    val, test = (place_of("token", split=split) for split in ("val", "test"))
    methods = [name for name in run.methods if run.values(name, "ap", test)]
    methods.sort(key=lambda name: -(run.mean(name, "ap", val) or run.mean(name, "ap", test) or 0.0))
    columns: Columns = {
        f"{split} {label}": partial(run.cell, metric=metric, place=place)
        for split, place in (("val", val), ("test", test))
        if any(run.values(name, "ap", place) for name in methods)
        for metric, label in (("ap", "AP"), ("auroc", "AUROC"))
    }
    columns["published¹: AP / AUROC"] = _known(published, "token", "ap", "auroc")
    if methods:
        yield from _headed("Tokens of tumour slices", by_method(methods, columns))


def _image_table(run: Run, published: Rows) -> Iterator[str]:
    known, lines = _known(published, "image", "auroc"), []
    for name in run.methods:
        for region, suffix in (("all", ""), ("classifier", ", its own score")):
            place = place_of("image", "head", region)
            if run.values(name, "auroc", place):
                row = [run.cell(name, metric, place) for metric in ("auroc", "ap")]
                lines.append([title(name) + suffix, *row, known(name) if suffix else ""])
    if lines:
        table = markdown(["method", "AUROC", "AP", "published¹: AUROC"], lines)
        yield from _headed(
            "Slices with against slices without tumour (mean of the highest 1 % of the map)", table
        )


def _strata_table(run: Run, heading: str, strata: Sequence[str]) -> Iterator[str]:
    columns: Columns = {
        name: partial(run.cell, metric="ap", place=place_of("pixel", name)) for name in strata
    }
    found = {name: cell for name, cell in columns.items() if any(map(cell, run.methods))}
    if found:
        yield from _headed(heading, by_method(run.methods, found))


def _fold_table(run: Run) -> Iterator[str]:
    """Return the AP of the test patients of each fold alone, maps as they are."""
    folds = sorted({row["fold"] for row in run.runs if row.get("fold")}, key=int)

    def cell(fold: str, method: str) -> str:
        values = [float(row["ap"]) for row in matching(run.runs, {"method": method, "fold": fold})]
        return form(mean(values) if values else None, ".3f")

    columns: Columns = {f"fold {fold}": partial(cell, fold) for fold in folds}
    if columns:
        yield from _headed(
            "AP of each fold alone, all pixels of tumour slices", by_method(run.methods, columns)
        )


def _run_table(run: Run) -> Iterator[str]:
    def average(column: str, spec: str) -> Callable[[str], str]:
        def cell(method: str) -> str:
            values = [float(row[column]) for row in matching(run.runs, {"method": method}) if row.get(column)]
            return form(mean(values) if values else None, spec)

        return cell

    def chosen(method: str) -> str:
        return _chosen([json.loads(row["parameters"]) for row in matching(run.runs, {"method": method})])

    columns: Columns = {
        "s of fit": average("fit_seconds", ".0f"),
        "s per 32 slices without key-value cache (32 times one)": average("seconds_per_32_uncached", ".3g"),
        "chosen": chosen,
    }
    methods = [name for name in run.methods if matching(run.runs, {"method": name})]
    threads = ", ".join(sorted({row["threads"] for row in run.runs}))
    heading = f"Time of fit, shared networks counted for each method (threads: {threads}), and what was chosen on val"
    if methods:
        yield from _headed(heading, by_method(methods, columns))


def _ablation_table(run: Run) -> Iterator[str]:
    """Return what one change at a time does to the recipe, on the tumour slices of val."""
    recipes = {row["seed"]: row for row in run.ablation if row["variant"] == "recipe"}
    header = ["variant", "token AP", "AP", "gain", "best Dice", "gain", "s of fit", "s per 32 slices"]
    order = {name: place for place, name in enumerate(VARIANTS)}  # variants of earlier code come last
    lines = []
    for row in sorted(run.ablation, key=lambda row: (row["seed"], order.get(row["variant"], len(order)))):
        recipe, cells = recipes.get(row["seed"], row), []
        for name in ("ap", "best_dice"):
            cells += [form(row[name], ".3f"), f"{float(row[name]) - float(recipe[name]):+.3f}"]
        times = [form(row["fit_seconds"], ".0f"), form(row["seconds_per_32"], ".2g")]
        lines.append([row["variant"], form(row["token_ap"], ".3f"), *cells, *times])
    if lines:
        seeds = ", ".join(sorted({row["seed"] for row in run.ablation}))
        heading = "Ablation: one change of the recipe at a time, all pixels of the tumour slices of val, seed"
        yield from _headed(f"{heading} {seeds}", markdown(header, lines))


def _chosen(runs: Sequence[Mapping[str, object]]) -> str:
    """Return what was chosen of each parameter, of several runs all that differs."""
    names = dict.fromkeys(name for run in runs for name in run)
    return ", ".join(
        f"{name.rpartition('__')[2]} {' or '.join(dict.fromkeys(str(run[name]) for run in runs if name in run))}"
        for name in names
    )


def _tried_table() -> Iterator[str]:
    """Return what lesions decided of each method: on val, by the number of candidates, and before."""
    before = {row["method"]: row for row in records.read_table(TRIED)}
    header = ["method", "candidates on val", "decided before", "by which lesions", "so its row"]
    lines = []
    for name, row in before.items():
        told = [row[column] for column in ("tried", "lesions", "meaning")]
        lines.append([title(name), str(n_candidates(METHODS[name].grid) or "none"), *told])
    yield "### What was tried, and what lesions decided"
    yield markdown(header, lines)


def _published_table(published: Rows) -> Iterator[str]:
    names = ("title", "level", "best_dice", "ap", "auroc", "seconds_per_32", "data", "source")
    header = ["method", "level", "best Dice", "AP", "AUROC", "s per 32 slices", "data", "source"]
    yield "### ¹ Published on other data"
    yield "Measured by others on other data: not comparable with the tables above."
    yield markdown(header, [[row[name] for name in names] for row in published])


def _known(published: Rows, level: str, *names: str) -> Callable[[str], str]:
    """Return what makes a cell of a method's published figures."""
    rows = {row["method"]: row for row in published if row["level"] == level}
    return lambda method: " / ".join(rows[method][name] or "-" for name in names) if method in rows else ""


def _headed(heading: str, table: str) -> Iterator[str]:
    yield f"**{heading}**"
    yield table
