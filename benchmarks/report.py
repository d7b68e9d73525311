"""Render the tables and figures of all results into benchmarks/README.md and benchmarks/figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from benchmarks import domain, figures, headline, ledger, records, speed_report, tables
from benchmarks.ablation import VARIANTS
from benchmarks.methods import title
from skmimood.datasets import LESION_KINDS

START, END = "<!-- accuracy:start -->", "<!-- accuracy:end -->"
PUBLISHED = Path(__file__).parent / "published.csv"
README = Path(__file__).parent / "README.md"
FIGURES = Path(__file__).parent / "figures"
_DATA_TITLES = {
    "phantom": "Brain phantom (T2)",
    "lgg": "TCGA-LGG, FLAIR",
    "ixi-synthetic": "Lesions planted into IXI, T1",
    "brats": "BraTS",
    "mslub": "MSLUB",
    "folder": "Folder of scans and masks",
}
_METRIC_TITLES = {
    "best_dice": "best Dice",
    "ap": "AP",
    "auroc": "AUROC",
    "dice_at_val_threshold": "Dice at val threshold",
    "false_alarm_rate": "false alarms",
}

Rows = Sequence[dict[str, str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="folder of the tables")
    parser.add_argument("--readme", type=Path, default=README, help="file with the markers")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the figures")
    parser.add_argument(
        "--cases", type=Path, metavar="FILE.npz",
        help="only draw these cases, which `accuracy` keeps in its cache, beside them: local, never to be published",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    if arguments.cases is not None:
        figures.draw_cases(arguments.cases, arguments.cases.with_suffix(".png"))
        return
    text = render(arguments.results, arguments.figures, arguments.readme.parent)
    fill(arguments.readme, text)
    speed = speed_report.render(arguments.results, arguments.figures, arguments.readme.parent)
    fill(arguments.readme, speed, speed_report.START, speed_report.END)
    fill(arguments.readme, domain.render(arguments.results), domain.START, domain.END)
    if arguments.readme == README:
        shown = headline.headline(arguments.results, load_runs(arguments.results), _DATA_TITLES)
        fill(README.parents[1] / "README.md", shown, headline.START, headline.END)


def fill(readme: Path, text: str, first: str = START, last: str = END) -> None:
    """Put ``text`` between the two markers of a file.

    Raises
    ------
    SystemExit
        If they are not there.
    """
    before, start, rest = readme.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise SystemExit(
            f"error: {readme} lacks the lines {first} and {last}. Put them where the tables belong."
        )
    readme.write_text(f"{before}{first}\n\n{text.strip()}\n\n{last}{after}", encoding="utf-8")


@dataclass(frozen=True)
class Run:
    """All results of one data set, preset and device.

    Attributes
    ----------
    dataset, preset, device : str
        What they are of.
    rows, runs, intervals, curves, differences : sequence of dict
        Lines of the tables.
    """

    dataset: str
    preset: str
    device: str
    rows: Rows
    runs: Rows
    intervals: Rows
    curves: Rows
    differences: Rows
    ablation: Rows

    @property
    def methods(self) -> list[str]:
        """Names of the methods, the highest mean AP over pixels of tumour slices first."""
        names = dict.fromkeys(row["method"] for row in self.rows)
        return sorted(names, key=lambda name: -(self.mean(name, "ap", _PIXELS) or 0.0))

    @property
    def region(self) -> str:
        """What is evaluated besides all pixels, ``"interior"`` or ``"brain"``."""
        named = {row["region"] for row in self.rows if row["level"] == "pixel"} - {"all"}
        return min(named, default="all")

    def values(self, method: str, metric: str, place: dict[str, str]) -> list[float]:
        """Return a figure of each seed."""
        wanted = {"method": method, **place}
        rows = [row for row in self.rows if wanted.items() <= row.items()]
        return [float(row[metric]) for row in rows if row[metric]]

    def mean(self, method: str, metric: str, place: dict[str, str]) -> float | None:
        """Return the mean over seeds, None without any."""
        values = self.values(method, metric, place)
        return mean(values) if values else None

    def interval(self, method: str, metric: str, place: dict[str, str]) -> tuple[float, float] | None:
        """Return the bootstrap interval of a figure over pixels of test slices."""
        wanted = {"method": method, "metric": metric, "slices": place["slices"], "region": place["region"]}
        seeds = {row["seed"] for row in self.rows if row["method"] == method}
        for row in self.intervals:
            if set(row["seeds"].split()) != seeds:
                continue  # of another run than the mean beside it
            if place["level"] == "pixel" and wanted.items() <= row.items():
                return float(row["low"]), float(row["high"])
        return None

    def cell(self, method: str, metric: str, place: dict[str, str], *, interval: bool = False) -> str:
        """Return mean, standard deviation over seeds and, if asked for, the interval, as text."""
        values = self.values(method, metric, place)
        if not values:
            return ""
        text = f"{mean(values):.3f}"
        if len(values) > 1:
            text += f" ± {stdev(values):.3f}"
        bounds = self.interval(method, metric, place) if interval else None
        return text if bounds is None else f"{text} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _place(level: str, slices: str = "tumour", region: str = "all", split: str = "test") -> dict[str, str]:
    return {"level": level, "slices": slices, "region": region, "split": split}


_PIXELS = _place("pixel")


def load_runs(results: Path) -> list[Run]:
    """Read all tables of a folder and divide them by data set, preset and device."""
    runs = []
    for dataset in _DATA_TITLES:
        parts = [
            tables.read_table(results / f"{dataset}{suffix}.csv")
            for suffix in ("", "_runs", "_intervals", "_curves", "_differences", "_ablation")
        ]
        for preset, device in dict.fromkeys((row["preset"], row["device"]) for row in parts[0]):
            same = {"preset": preset, "device": device}
            chosen = [[row for row in rows if same.items() <= row.items()] for rows in parts]
            runs.append(Run(dataset, preset, device, *chosen))
    return runs


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
    published, parts = tables.read_table(PUBLISHED), []
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
    yield f"### {_DATA_TITLES[run.dataset]}: preset {run.preset}, {run.device}"
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
        ("Pixels of tumour slices", _PIXELS, True),
        (f"Pixels of tumour slices, {run.region} only", _place("pixel", region=run.region), False),
        ("Pixels of all head slices, tumour-free ones too", _place("pixel", "head"), False),
        (f"Pixels of all head slices, {run.region} only", _place("pixel", "head", run.region), False),
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
        if (row["slices"], row["region"]) == (_PIXELS["slices"], _PIXELS["region"])
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
    methods = [name for name in run.methods if run.values(name, "ap", _place("token"))]
    methods.sort(key=lambda name: -(run.mean(name, "ap", _place("token", split="val")) or 0.0))

    def cells(method: str) -> list[str]:
        places = [_place("token", split=split) for split in ("val", "test")]
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
        if run.values(name, "auroc", _place("image", "head", region))
    ]
    labels = {
        pair: title(pair[0]) + (", its own score" if pair[1] == "classifier" else "") for pair in scored
    }

    def cells(label: str) -> list[str]:
        name, region = next(pair for pair, text in labels.items() if text == label)
        place = _place("image", "head", region)
        row = [run.cell(name, metric, place) for metric in ("auroc", "ap")]
        return [*row, _joined(known.get(name) if region == "classifier" else None, ("auroc",))]

    if scored:
        heading = "Slices with against slices without tumour (mean of the highest 1 % of the map)"
        yield _table(heading, ["AUROC", "AP", "published¹: AUROC"], list(labels.values()), cells)


def _strata_table(run: Run, heading: str, strata: Sequence[str]) -> Iterable[str]:
    strata = [name for name in strata if any(run.values(m, "ap", _place("pixel", name)) for m in run.methods)]
    if strata:
        yield _table(
            heading, list(strata), run.methods,
            lambda method: [run.cell(method, "ap", _place("pixel", name)) for name in strata],
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
    yield f"**{heading}**\n\n{tables.markdown(header, lines)}"


def _parameters(text: str) -> str:
    chosen = json.loads(text)
    return ", ".join(f"{name.rpartition('__')[2]} {value}" for name, value in chosen.items())


def published_section(published: Rows) -> str:
    """Return all published figures as a table of their own."""
    names = ("title", "level", "best_dice", "ap", "auroc", "seconds_per_32", "data", "source")
    rows = [[row[name] for name in names] for row in published]
    header = ["method", "level", "best Dice", "AP", "AUROC", "s per 32 slices", "data", "source"]
    remark = "Measured by others on other data: not comparable with the tables above."
    return "\n".join(["### ¹ Published on other data", "", remark, "", tables.markdown(header, rows)])


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
