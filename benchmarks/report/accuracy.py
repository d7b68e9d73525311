"""Tables and figures of accuracy, data set by data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean

from benchmarks import records
from benchmarks.protocol import ledger
from benchmarks.protocol.methods import title
from benchmarks.protocol.variants import VARIANTS
from benchmarks.report import figures
from benchmarks.report.results import DATA_TITLES, PIXELS, Rows, Run, load_runs, place_of
from benchmarks.report.tables import form, markdown
from skmimood.datasets import LESION_KINDS

START, END = "<!-- accuracy:start -->", "<!-- accuracy:end -->"
PUBLISHED = Path(__file__).parents[1] / "published.csv"
_METRICS = {
    "best_dice": "best Dice",
    "ap": "AP",
    "auroc": "AUROC",
    "dice_at_val_threshold": "Dice at val threshold",
}


def render(results: Path, folder: Path, base: Path) -> str:
    """Draw the figures of all ``results`` into ``folder``; return their tables as Markdown, for a file in ``base``."""
    published, parts = records.read_table(PUBLISHED), []
    for run in load_runs(results):
        stem = figures.slug(f"{run.dataset}-{run.preset}-{run.device}")
        bars, curves = folder / f"{stem}-bars.png", folder / f"{stem}-curves.png"
        figures.draw_bars(run, bars)
        figures.draw_curves(run, curves)
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


def sections(run: Run, published: Rows) -> Iterator[str]:
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


def _pixel_tables(run: Run, published: Rows) -> Iterator[str]:
    known, region = _published_of(published, "pixel"), run.region

    def cells(method: str) -> list[str]:
        row = [run.cell(method, name, interval=name != "auroc") for name in _METRICS]
        seconds = form(run.mean(method, "seconds_per_32"), ".3g")
        return [*row, seconds, _joined(known.get(method), ("best_dice", "ap", "auroc", "seconds_per_32"))]

    extra = ["s per 32 slices", "published¹: Dice / AP / AUROC / s"]
    yield _table("Pixels of tumour slices", [*_METRICS.values(), *extra], run.methods, cells)
    head = {**_METRICS, "false_alarm_rate": "false alarms"}
    for heading, place, metrics in (
        (f"Pixels of tumour slices, {region} only", place_of("pixel", region=region), _METRICS),
        ("Pixels of all head slices, tumour-free ones too", place_of("pixel", "head"), head),
        (f"Pixels of all head slices, {region} only", place_of("pixel", "head", region), head),
    ):

        def more(method: str, place: dict = place, metrics: dict = metrics) -> list[str]:
            return [run.cell(method, name, place, interval=name != "auroc") for name in metrics]

        yield _table(heading, metrics.values(), run.methods, more)


def _difference_table(run: Run) -> Iterator[str]:
    told = {}
    for row in run.differences:
        if (row["slices"], row["region"]) == (PIXELS["slices"], PIXELS["region"]):
            gap, low, high = (float(row[name]) for name in ("mean", "low", "high"))
            told[row["minus"], row["metric"]] = f"{gap:+.3f} [{low:+.3f}, {high:+.3f}]"
    if told:
        ours = min(row["method"] for row in run.differences)
        yield _table(
            f"{title(ours)} minus each other method, pixels of tumour slices",
            _METRICS.values(),
            [method for method in run.methods if (method, "ap") in told],
            lambda method: [told.get((method, name), "") for name in _METRICS],
        )


def _token_table(run: Run, published: Rows) -> Iterator[str]:
    known = _published_of(published, "token")
    val, test = (place_of("token", split=split) for split in ("val", "test"))
    methods = [name for name in run.methods if run.values(name, "ap", test)]
    methods.sort(key=lambda name: -(run.mean(name, "ap", val) or 0.0))

    def cells(method: str) -> list[str]:
        row = [run.cell(method, name, place) for place in (val, test) for name in ("ap", "auroc")]
        return [*row, _joined(known.get(method), ("ap", "auroc"))]

    header = ["val AP", "val AUROC", "test AP", "test AUROC", "published¹: AP / AUROC"]
    if methods:
        yield _table("Tokens of tumour slices", header, methods, cells)


def _image_table(run: Run, published: Rows) -> Iterator[str]:
    known = _published_of(published, "image")
    lines = []
    for name in run.methods:
        for region, suffix in (("all", ""), ("classifier", ", its own score")):
            place = place_of("image", "head", region)
            if run.values(name, "auroc", place):
                row = [run.cell(name, metric, place) for metric in ("auroc", "ap")]
                told = _joined(known.get(name), ("auroc",)) if suffix else ""
                lines.append([title(name) + suffix, *row, told])
    if lines:
        header = ["method", "AUROC", "AP", "published¹: AUROC"]
        heading = "Slices with against slices without tumour (mean of the highest 1 % of the map)"
        yield f"**{heading}**\n\n{markdown(header, lines)}"


def _strata_table(run: Run, heading: str, strata: Sequence[str]) -> Iterator[str]:
    places = {name: place_of("pixel", name) for name in strata}
    found = [name for name in strata if any(run.values(one, "ap", places[name]) for one in run.methods)]
    if found:
        yield _table(
            heading, found, run.methods, lambda one: [run.cell(one, "ap", places[name]) for name in found]
        )


def _run_table(run: Run) -> Iterator[str]:
    def cells(method: str) -> list[str]:
        told = [row for row in run.runs if row["method"] == method]
        fit, uncached = (
            [float(row[name]) for row in told if row[name]]
            for name in ("fit_seconds", "seconds_per_32_uncached")
        )
        chosen = dict.fromkeys(_parameters(row["parameters"]) for row in told)
        return [form(mean(fit), ".0f"), form(mean(uncached) if uncached else None, ".3g"), "; ".join(chosen)]

    methods = [name for name in run.methods if any(row["method"] == name for row in run.runs)]
    threads = ", ".join(sorted({row["threads"] for row in run.runs}))
    heading = f"Time of fit, shared networks counted for each method (threads: {threads}), and what was chosen on val"
    header = ["s of fit", "s per 32 slices without key-value cache (32 times one)", "chosen"]
    if methods:
        yield _table(heading, header, methods, cells)


def _ablation_table(run: Run) -> Iterator[str]:
    """Return what one change at a time does to the recipe, on the tumour slices of val."""
    if not run.ablation:
        return
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
    return "\n\n".join(["### ¹ Published on other data", remark, markdown(header, rows)])


def _published_of(published: Rows, level: str) -> dict[str, dict[str, str]]:
    return {row["method"]: row for row in published if row["level"] == level and row["method"]}


def _joined(row: dict[str, str] | None, names: Sequence[str]) -> str:
    return "" if row is None else " / ".join(row[name] or "-" for name in names)


def _table(
    heading: str, header: Iterable[str], methods: Sequence[str], cells: Callable[[str], list[str]]
) -> str:
    """Return a heading and a Markdown table with a line for each method."""
    return (
        f"**{heading}**\n\n{markdown(['method', *header], [[title(name), *cells(name)] for name in methods])}"
    )
