"""Bar charts with intervals, precision-recall curves, cost, and cases like those of MIM-OOD's figure 3."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protocol.healing import HEALERS
from benchmarks.protocol.methods import title
from benchmarks.report.results import Rows, Run, matching

# Okabe and Ito's palette, which the colour-blind can tell apart; line styles tell the second round from the first.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_OURS, _OTHERS = "#D55E00", "#0072B2"
_STYLES = ("-", "--")
_CASE_TITLES = {
    "image": "slice", "tokens": "anomaly of its tokens", "healed": "healed", "map": "anomaly map", "truth": "lesion",
}  # fmt: skip


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _subplots(*shape: int, size: tuple[float, float], **options: Any) -> tuple[Any, np.ndarray]:
    """Return a figure and its axes (rows, columns), without lines above and at the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(*shape, figsize=size, squeeze=False, layout="constrained", **options)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, base: Path, name: str, caption: str, *, dpi: int = 110) -> str:
    """Save a figure for a file in the folder ``base``, and return its link."""
    path = base / "figures" / f"{name}.png"
    _write(figure, path, dpi=dpi)
    return f"![{caption}](figures/{path.name})"


def _write(figure: Any, path: Path, *, dpi: int) -> None:
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    # No date and no version: the same results draw the same bytes.
    figure.savefig(path, dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)


def draw_bars(run: Run, base: Path) -> str:
    """Draw best Dice and AP over all pixels of tumour slices of test, with intervals over patients."""
    names = run.methods[::-1]
    figure, axes = _subplots(1, 2, size=(8.5, 0.9 + 0.32 * len(names)), sharey=True)
    for axis, metric, label in zip(axes[0], ("best_dice", "ap"), ("best Dice", "AP"), strict=True):
        means = [run.mean(name, metric) or 0.0 for name in names]
        axis.barh(range(len(names)), means, color=[_OURS if name == "mimood" else _OTHERS for name in names])
        for i, (name, value) in enumerate(zip(names, means, strict=True)):
            bounds = run.interval(name, metric)
            if bounds is not None:
                axis.plot(bounds, (i, i), color="black", linewidth=1.2)
            seeds = run.values(name, metric)
            axis.plot(seeds, [i] * len(seeds), "o", color="white", markeredgecolor="black", markersize=3)
            axis.text(max([value, *(bounds or ())]) + 0.01, i, f"{value:.2f}", va="center", fontsize=8)
        axis.set_yticks(range(len(names)), [title(name) for name in names], fontsize=8)
        axis.set(xlim=(0, 1), xlabel=f"{label}, all pixels of tumour slices")
    name = f"{_slug(f'{run.dataset}-{run.preset}-{run.device}')}-bars"
    return _save(figure, base, name, "Best Dice and AP with intervals")


def draw_curves(run: Run, base: Path) -> str:
    """Draw precision over recall of the first seed, over all pixels of tumour slices of test."""
    figure, ((axis,),) = _subplots(1, 1, size=(6.2, 4.6))
    for i, name in enumerate(run.methods):
        points = matching(run.curves, {"method": name, "slices": "tumour", "region": "all"})
        recall, precision = ([float(row[key]) for row in points] for key in ("recall", "precision"))
        look: dict[str, Any] = {"color": _COLOURS[i % len(_COLOURS)], "label": title(name)}
        look["linewidth"] = 2.4 if name == "mimood" else 1.3
        axis.plot(recall, precision, _STYLES[i // len(_COLOURS) % len(_STYLES)], **look)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision")
    axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    name = f"{_slug(f'{run.dataset}-{run.preset}-{run.device}')}-curves"
    return _save(figure, base, name, "Precision over recall")


def draw_cases(source: Path, base: Path) -> str:
    """Draw what `accuracy` kept of some slices: a row for each case."""
    with np.load(source, allow_pickle=False) as file:
        arrays = dict(file)
    n, n_columns = len(arrays["titles"]), len(_CASE_TITLES)
    figure, axes = _subplots(n, n_columns, size=(1.5 * n_columns, 1.55 * n))
    for case, row in enumerate(axes):
        for axis, name in zip(row, _CASE_TITLES, strict=True):
            colours = "gray" if name in ("image", "healed", "truth") else "inferno"
            axis.imshow(arrays[name][case], cmap=colours, vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(True)
        row[0].set_ylabel(str(arrays["titles"][case]), fontsize=8)
    for axis, text in zip(axes[0], _CASE_TITLES.values(), strict=True):
        axis.set_title(text, fontsize=8)
    return _save(figure, base, _slug(source.stem), "Cases", dpi=80)


def draw_healing(cases: Mapping[str, np.ndarray], path: Path) -> None:
    """Draw what `healing` kept of some slices as ``path``: a row for each kind of lesion."""
    methods = [name for name in HEALERS if name in cases]
    columns = {"twin": "before the lesion", "scan": "scan"} | {name: title(name) for name in methods}
    n = len(cases["titles"])
    figure, axes = _subplots(n, len(columns), size=(1.4 * len(columns), 1.45 * n))
    for case, row in enumerate(axes):
        for axis, name in zip(row, columns, strict=True):
            axis.imshow(cases[name][case], cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            if name == "twin":  # on the scan it would hide what it surrounds
                axis.contour(cases["lesion"][case], [127], colors=_OURS, linewidths=0.6)
        row[0].set_ylabel(str(cases["titles"][case]), fontsize=8)
    for axis, text in zip(axes[0], columns.values(), strict=True):
        axis.set_title(textwrap.fill(text, 16), fontsize=7)
    _write(figure, path, dpi=90)


def draw_growth(series: Mapping[str, Sequence[Mapping[str, Any]]], base: Path, name: str) -> str:
    """Draw seconds over each series (points with ``value``, ``seconds``, ``floor_seconds``), both logarithmic."""
    figure, axes = _subplots(1, len(series), size=(2.5 * len(series), 2.7))
    for axis, (varied, points) in zip(axes[0], series.items(), strict=True):
        values = [point["value"] for point in points]
        looks = {"measured": ("seconds", _OURS, "o-"), "floor": ("floor_seconds", _OTHERS, "--")}
        for of, (key, colour, style) in looks.items():
            seconds = [point[key] for point in points]
            label = f"{of}, power {exponent(values, seconds):.2f}"
            axis.plot(values, seconds, style, color=colour, markersize=4, label=label)
        axis.set(xscale="log", yscale="log", xlabel=varied)
        axis.set_xticks(values, [f"{value:g}" for value in values], fontsize=7)
        axis.minorticks_off()
        axis.legend(fontsize=6, frameon=False)
    axes[0, 0].set_ylabel("seconds")
    return _save(figure, base, f"{name}-growth", "Seconds over each of the five, and the floor")


def exponent(values: Sequence[float], seconds: Sequence[float]) -> float:
    """Fit seconds = c * value ** exponent by least squares of the logarithms; NaN for fewer than two values."""
    if len(values) < 2:
        return float("nan")
    return float(np.polyfit(np.log(values), np.log(seconds), 1)[0])


def draw_pareto(rows: Rows, base: Path, name: str) -> str:
    """Draw AP over seconds per 32 slices of all variants of the methods; a star is a method as it comes."""
    figure, ((axis,),) = _subplots(1, 1, size=(6.2, 4.2))
    for i, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        for is_default, marker, size in (("False", "o", 22), ("True", "*", 190)):
            points = matching(rows, {"method": method, "is_default": is_default})
            x, y = ([float(row[key]) for row in points] for key in ("seconds_per_32", "ap"))
            label = title(method) + ", as it comes" * (is_default == "True")
            look: dict[str, Any] = {"marker": marker, "edgecolor": "black", "linewidth": 0.4}
            axis.scatter(x, y, size, color=_COLOURS[i], label=label, **look)
            for row, place in zip(points, zip(x, y, strict=True), strict=True):
                axis.annotate(_short(row), place, (3, 3), textcoords="offset points", fontsize=5)
    axis.set(xscale="log", xlabel="seconds per 32 slices", ylabel="AP, all pixels of tumour slices of val")
    axis.legend(fontsize=7, frameon=False)
    return _save(
        figure,
        base,
        f"{_slug(name)}-pareto",
        "AP over seconds per 32 slices; a star is the method as it comes",
    )


def _short(row: Mapping[str, str]) -> str:
    """Return the label of a point: R, T and passes, where there are any."""
    parts = [f"R{row['n_restorations']}"]
    for sign, name in (("T", "n_steps"), ("P", "n_passes")):
        parts += [f"{sign}{row[name]}"] if row.get(name, "") not in ("", "1") else []
    return " ".join([*parts, "uncached"] if row["variant"] == "uncached" else parts)


def draw_calibration(rows: Rows, base: Path) -> str:
    """Draw the empirical over the nominal rates of false positives, of pixels and of scans."""
    figure, axes = _subplots(1, 2, size=(8.0, 3.8))
    for axis, level in zip(axes[0], ("pixel", "scan"), strict=True):
        chosen = [row for row in rows if row["level"] == level]
        ends = [0.0, 1.1 * max(float(row["asked"]) for row in chosen)]
        axis.plot(ends, ends, "--", color="0.4", linewidth=1, label="as asked for")
        for i, n in enumerate(sorted({row["n_calibration"] for row in chosen}, key=int)):
            columns = ("asked", "rate", "low", "high")
            points = np.array(
                [[float(row[name]) for name in columns] for row in chosen if row["n_calibration"] == n]
            )
            asked, rate, low, high = points.T
            look: dict[str, Any] = {"fmt": "os"[i % 2], "color": _COLOURS[i], "markersize": 4, "capsize": 2}
            shift = (i - 0.5) * 0.004  # or bars of the same rate would lie on one another
            axis.errorbar(
                asked + shift, rate, (rate - low, high - rate), label=f"set on {n} subjects", **look
            )
        axis.set(xlabel="rate asked for", ylabel=f"share of unseen healthy {level}s above the threshold")
    axes[0, 0].legend(fontsize=8, frameon=False)
    return _save(figure, base, "calibration", "Rates of false positives on unseen healthy subjects")
