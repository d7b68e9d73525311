"""Tables and figures of accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean

from benchmarks import records
from benchmarks.protocol import ledger
from benchmarks.protocol.methods import title
from benchmarks.protocol.variants import VARIANTS
from benchmarks.report import figures
from benchmarks.report.results import DATA_TITLES, PIXELS, Rows, Run, load_runs, place_of
from benchmarks.report.tables import markdown
from skmimood.datasets import LESION_KINDS

START, END = "<!-- accuracy:start -->", "<!-- accuracy:end -->"
PUBLISHED = Path(__file__).parents[1] / "published.csv"
_METRIC_TITLES = {
    "best_dice": "best Dice",
    "ap": "AP",
    "auroc": "AUROC",
    "dice_at_val_threshold": "Dice at val threshold",
    "false_alarm_rate": "false alarms",
}


def render(results: Path, folder: Path, base: Path) -> str:
    """Draw the figures of all results and return the Markdown of their tables.

    Parameters
    ----------
    results : Path
        Folder of the CSV tables.
    folder : Path
        Where figures go.
    base : Path
        Folder of the Markdown file, which links to figures.

    Returns
    -------
    str
    """
    published, parts = records.read_table(PUBLISHED), []
    for run in load_runs(results):
        stem = figures.slug(f"{run.dataset}-{run.preset}-{run.device}")
        bars, curves = folder / f"{stem}-bars.png", folder / f"{stem}-curves.png"
        labelled = {name: title(name) for name in run.methods}
        figures.draw_bars(run, labelled, bars)
        figures.draw_curves(run, labelled, curves)
        links = [
            figures.link("Best Dice and AP with intervals", bars, base),
            figures.link("Precision over recall", curves, base),
        ]
        cases = results / f"{run.dataset}_{run.preset}_cases.npz"
        if cases.exists():
            drawn = folder / f"{figures.slug(f'{run.dataset}-{run.preset}')}-cases.png"
            figures.draw_cases(cases, drawn)
            links.append(figures.link("Cases", drawn, base))
        parts.append("\n\n".join([*sections(run, published), *links]))
    if not parts:
        return "No results yet."
    return "\n\n".join([*parts, published_section(published)])


def sections(run: Run, published: Rows) -> Iterable[str]:
    """Return heading and tables of one run as Markdown."""
    seeds = sorted({row["seed"] for row in run.rows}, key=int)
    commits = sorted({row["commit"] for row in run.rows})
    yield f"### {DATA_TITLES[run.dataset]}: preset {run.preset}, {run.device}"
    yield (
        f"Seeds {', '.join(seeds)}; scored at commit {', '.join(commits)}; {ledger.sentence(run.runs)}. "
        "Mean ± standard deviation over seeds, where there is more than one, and in brackets the 95 % interval over "
        "patients."
    )
    yield from _pixel_tables(run, published)
    yield from _difference_table(run)
    yield from _token_table(run, published)
    yield from _image_table(run, published)
    thirds = "AP by lesion area (thirds of the test slices)"
    yield from _strata_table(run, thirds, ["small", "medium", "large"])
    yield from _strata_table(run, "AP by kind of lesion", LESION_KINDS)
    yield from _run_table(run)
    yield from _ablation_table(run)


def _pixel_tables(run: Run, published: Rows) -> Iterable[str]:
    known = _published_of(published, "pixel")
    places = [
        ("Pixels of tumour slices", PIXELS, True),
        (f"Pixels of tumour slices, {run.region} only", place_of("pixel", region=run.region), False),
        ("Pixels of all head slices, tumour-free ones too", place_of("pixel", "head"), False),
        (f"Pixels of all head slices, {run.region} only", place_of("pixel", "head", run.region), False),
    ]
    for heading, place, is_headline in places:
        names = ["best_dice", "ap", "auroc", "dice_at_val_threshold"]
        if place["slices"] == "head":
            names.append("false_alarm_rate")

        def cells(
            method: str, place: dict = place, names: list = names, told: bool = is_headline
        ) -> list[str]:
            row = [run.cell(method, name, place, interval=name != "auroc") for name in names]
            if told:
                row.append(_number(run.mean(method, "seconds_per_32", place), ".3g"))
                row.append(_joined(known.get(method), ("best_dice", "ap", "auroc", "seconds_per_32")))
            return row

        extra = ["s per 32 slices", "published¹: Dice / AP / AUROC / s"] if is_headline else []
        yield _table(heading, [_METRIC_TITLES[name] for name in names] + extra, run.methods, cells)


def _difference_table(run: Run) -> Iterable[str]:
    told = {
        (
            row["minus"],
            row["metric"],
        ): f"{float(row['mean']):+.3f} [{float(row['low']):+.3f}, {float(row['high']):+.3f}]"
        for row in run.differences
        if (row["slices"], row["region"]) == (PIXELS["slices"], PIXELS["region"])
    }
    names = ("best_dice", "ap", "auroc", "dice_at_val_threshold")
    ours = {row["method"] for row in run.differences}
    if told:
        yield _table(
            f"{title(min(ours))} minus each other method, pixels of tumour slices",
            [_METRIC_TITLES[name] for name in names],
            [method for method in run.methods if (method, "ap") in told],
            lambda method: [told.get((method, name), "") for name in names],
        )


def _token_table(run: Run, published: Rows) -> Iterable[str]:
    known = _published_of(published, "token")
    methods = [name for name in run.methods if run.values(name, "ap", place_of("token"))]
    methods.sort(key=lambda name: -(run.mean(name, "ap", place_of("token", split="val")) or 0.0))

    def cells(method: str) -> list[str]:
        places = [place_of("token", split=split) for split in ("val", "test")]
        row = [run.cell(method, name, place) for place in places for name in ("ap", "auroc")]
        return [*row, _joined(known.get(method), ("ap", "auroc"))]

    header = ["val AP", "val AUROC", "test AP", "test AUROC", "published¹: AP / AUROC"]
    if methods:
        yield _table("Tokens of tumour slices", header, methods, cells)


def _image_table(run: Run, published: Rows) -> Iterable[str]:
    known = _published_of(published, "image")
    scored = [
        (name, region)
        for name in run.methods
        for region in ("all", "classifier")
        if run.values(name, "auroc", place_of("image", "head", region))
    ]
    labels = {
        pair: title(pair[0]) + (", its own score" if pair[1] == "classifier" else "") for pair in scored
    }

    def cells(label: str) -> list[str]:
        name, region = next(pair for pair, text in labels.items() if text == label)
        place = place_of("image", "head", region)
        row = [run.cell(name, metric, place) for metric in ("auroc", "ap")]
        return [*row, _joined(known.get(name) if region == "classifier" else None, ("auroc",))]

    if scored:
        heading = "Slices with against slices without tumour (mean of the highest 1 % of the map)"
        yield _table(heading, ["AUROC", "AP", "published¹: AUROC"], list(labels.values()), cells)


def _strata_table(run: Run, heading: str, strata: Sequence[str]) -> Iterable[str]:
    strata = [
        name for name in strata if any(run.values(m, "ap", place_of("pixel", name)) for m in run.methods)
    ]
    if strata:
        yield _table(
            heading, list(strata), run.methods,
            lambda method: [run.cell(method, "ap", place_of("pixel", name)) for name in strata],
        )  # fmt: skip


def _run_table(run: Run) -> Iterable[str]:
    def cells(method: str) -> list[str]:
        told = [row for row in run.runs if row["method"] == method]
        seconds = mean(float(row["fit_seconds"]) for row in told)
        uncached = [float(row["seconds_per_32_uncached"]) for row in told if row["seconds_per_32_uncached"]]
        chosen = dict.fromkeys(_parameters(row["parameters"]) for row in told)
        return [
            _number(seconds, ".0f"),
            _number(mean(uncached) if uncached else None, ".3g"),
            "; ".join(chosen),
        ]

    methods = [name for name in run.methods if any(row["method"] == name for row in run.runs)]
    threads = ", ".join(sorted({row["threads"] for row in run.runs}))
    heading = f"Time of fit, shared networks counted for each method (threads: {threads}), and what was chosen on val"
    header = ["s of fit", "s per 32 slices without key-value cache (32 times one)", "chosen"]
    if methods:
        yield _table(heading, header, methods, cells)


def _ablation_table(run: Run) -> Iterable[str]:
    """Return what one change at a time does to the recipe, on the tumour slices of val."""
    if not run.ablation:
        return
    recipes = {row["seed"]: row for row in run.ablation if row["variant"] == "recipe"}
    header = ["variant", "token AP", "AP", "gain", "best Dice", "gain", "s of fit", "s per 32 slices"]
    lines: list[list[str]] = []
    order = {name: place for place, name in enumerate(VARIANTS)}
    for row in sorted(run.ablation, key=lambda row: (row["seed"], order.get(row["variant"], len(order)))):
        recipe = recipes.get(row["seed"], row)
        gains = {name: float(row[name]) - float(recipe[name]) for name in ("ap", "best_dice")}
        lines.append([
            row["variant"], f"{float(row['token_ap']):.3f}", f"{float(row['ap']):.3f}", f"{gains['ap']:+.3f}",
            f"{float(row['best_dice']):.3f}", f"{gains['best_dice']:+.3f}", f"{float(row['fit_seconds']):.0f}",
            f"{float(row['seconds_per_32']):.2g}",
        ])  # fmt: skip
    seeds = ", ".join(sorted({row["seed"] for row in run.ablation}))
    heading = (
        f"Ablation: one change of the recipe at a time, all pixels of the tumour slices of val, seed {seeds}"
    )
    yield f"**{heading}**\n\n{markdown(header, lines)}"


def _parameters(text: str) -> str:
    chosen = json.loads(text)
    return ", ".join(f"{name.rpartition('__')[2]} {value}" for name, value in chosen.items())


def published_section(published: Rows) -> str:
    """Return all published figures as a table of their own."""
    names = ("title", "level", "best_dice", "ap", "auroc", "seconds_per_32", "data", "source")
    rows = [[row[name] for name in names] for row in published]
    header = ["method", "level", "best Dice", "AP", "AUROC", "s per 32 slices", "data", "source"]
    remark = "Measured by others on other data: not comparable with the tables above."
    return "\n".join(["### ¹ Published on other data", "", remark, "", markdown(header, rows)])


def _published_of(published: Rows, level: str) -> dict[str, dict[str, str]]:
    return {row["method"]: row for row in published if row["level"] == level and row["method"]}


def _joined(row: dict[str, str] | None, names: Sequence[str]) -> str:
    return "" if row is None else " / ".join(row[name] or "-" for name in names)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _table(
    heading: str, header: Sequence[str], methods: Sequence[str], cells: Callable[[str], list[str]]
) -> str:
    """Return a Markdown table with a line for each method."""
    lines = [f"**{heading}**", ""]
    lines.append("| method | " + " | ".join(header) + " |")
    lines.append("|---" * (len(header) + 1) + "|")
    lines += [f"| {title(method)} | " + " | ".join(cells(method)) + " |" for method in methods]
    return "\n".join(lines)
