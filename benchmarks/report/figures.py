"""Bar charts with intervals, precision-recall curves, and cases like those of MIM-OOD's figure 3."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protocol.methods import title
from benchmarks.report.results import Run

# Okabe and Ito's palette, which the colour-blind can tell apart; line styles tell the second round from the first.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_OURS, _OTHERS = "#D55E00", "#0072B2"
_STYLES = ("-", "--")
_COLUMNS = ("image", "tokens", "healed", "map", "truth")
_COLUMN_TITLES = ("slice", "anomaly of its tokens", "healed", "anomaly map", "lesion")
_METRICS = (("best_dice", "best Dice"), ("ap", "AP"))


def slug(text: str) -> str:
    """Turn a name into a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path, *, dpi: int = 110) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date and no version: the same results draw the same bytes.
    figure.savefig(path, dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    _pyplot().close(figure)


def link(text: str, path: Path, base: Path) -> str:
    """Return the Markdown of a figure in a file of the folder ``base``."""
    inside = path.relative_to(base) if path.is_relative_to(base) else path
    return f"![{text}]({inside.as_posix()})"


def draw_bars(run: Run, titles: Mapping[str, str], path: Path) -> None:
    """Draw best Dice and AP over all pixels of tumour slices of test, with intervals over patients."""
    plt = _pyplot()
    place = {"level": "pixel", "slices": "tumour", "region": "all", "split": "test"}
    names = list(titles)[::-1]
    height = 0.9 + 0.32 * len(names)
    figure, axes = plt.subplots(1, 2, figsize=(8.5, height), sharey=True, layout="constrained")
    for axis, (metric, label) in zip(axes, _METRICS, strict=True):
        means = [run.mean(name, metric, place) or 0.0 for name in names]
        axis.barh(range(len(names)), means, color=[_OURS if name == "mimood" else _OTHERS for name in names])
        for i, (name, value) in enumerate(zip(names, means, strict=True)):
            bounds = run.interval(name, metric, place)
            if bounds is not None:
                axis.plot(bounds, (i, i), color="black", linewidth=1.2)
            seeds = run.values(name, metric, place)
            axis.plot(seeds, [i] * len(seeds), "o", color="white", markeredgecolor="black", markersize=3)
            axis.text(max([value, *(bounds or ())]) + 0.01, i, f"{value:.2f}", va="center", fontsize=8)
        axis.set_yticks(range(len(names)), [titles[name] for name in names], fontsize=8)
        axis.set_xlim(0, 1)
        axis.set_xlabel(f"{label}, all pixels of tumour slices")
        axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def draw_curves(run: Run, titles: Mapping[str, str], path: Path) -> None:
    """Draw precision over recall of the first seed, over all pixels of tumour slices of test."""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(6.2, 4.6), layout="constrained")
    place = {"slices": "tumour", "region": "all"}
    for i, (name, label) in enumerate(titles.items()):
        points = [row for row in run.curves if {"method": name, **place}.items() <= row.items()]
        recall, precision = ([float(row[key]) for row in points] for key in ("recall", "precision"))
        style = _STYLES[i // len(_COLOURS) % len(_STYLES)]
        width = 2.4 if name == "mimood" else 1.3
        axis.plot(recall, precision, style, color=_COLOURS[i % len(_COLOURS)], linewidth=width, label=label)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, path)


def draw_cases(source: Path, path: Path) -> None:
    """Draw what `accuracy` kept: a row for each case."""
    plt = _pyplot()
    with np.load(source, allow_pickle=False) as file:
        arrays = dict(file)
    n = len(arrays["titles"])
    figure, axes = plt.subplots(
        n, len(_COLUMNS), figsize=(1.5 * len(_COLUMNS), 1.55 * n), squeeze=False, layout="constrained"
    )
    for row, case in zip(axes, range(n), strict=True):
        for axis, name in zip(row, _COLUMNS, strict=True):
            colours = "gray" if name in ("image", "healed", "truth") else "inferno"
            axis.imshow(arrays[name][case], cmap=colours, vmin=0, vmax=255)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(str(arrays["titles"][case]), fontsize=8)
    for axis, text in zip(axes[0], _COLUMN_TITLES, strict=True):
        axis.set_title(text, fontsize=8)
    _save(figure, path, dpi=80)


def draw_growth(series: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw seconds over each series (points with ``value``, ``seconds``, ``floor_seconds``), both logarithmic."""
    plt = _pyplot()
    figure, axes = plt.subplots(
        1, len(series), figsize=(2.5 * len(series), 2.7), layout="constrained", squeeze=False
    )
    for axis, (name, points) in zip(axes[0], series.items(), strict=True):
        values = [point["value"] for point in points]
        for key, colour, style in (("seconds", _OURS, "o-"), ("floor_seconds", _OTHERS, "--")):
            seconds = [point[key] for point in points]
            label = f"{'measured' if key == 'seconds' else 'floor'}, power {exponent(values, seconds):.2f}"
            axis.plot(values, seconds, style, color=colour, markersize=4, label=label)
        axis.set(xscale="log", yscale="log", xlabel=name)
        axis.set_xticks(values, [f"{value:g}" for value in values], fontsize=7)
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=6, frameon=False)
    axes[0, 0].set_ylabel("seconds")
    _save(figure, path)


def draw_pareto(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Draw AP over seconds per 32 slices of all variants of the methods; a star is a method as it comes."""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(6.2, 4.2), layout="constrained")
    for i, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        for is_default, marker, size in (("False", "o", 22), ("True", "*", 190)):
            points = [row for row in rows if (row["method"], row["is_default"]) == (method, is_default)]
            x, y = ([float(row[key]) for row in points] for key in ("seconds_per_32", "ap"))
            label = title(method) + (", as it comes" if is_default == "True" else "")
            axis.scatter(
                x, y, size, color=_COLOURS[i], marker=marker, label=label, edgecolor="black", linewidth=0.4
            )
            for row, place in zip(points, zip(x, y, strict=True), strict=True):
                axis.annotate(_short(row), place, (3, 3), textcoords="offset points", fontsize=5)
    axis.set(xscale="log", xlabel="seconds per 32 slices", ylabel="AP, all pixels of tumour slices of val")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, frameon=False)
    _save(figure, path)


def _short(row: Mapping[str, str]) -> str:
    """Return the label of a point: R, T and passes, where there are any."""
    parts = [f"R{row['n_restorations']}"]
    parts += [
        f"{sign}{row[name]}"
        for sign, name in (("T", "n_steps"), ("P", "n_passes"))
        if row[name] not in ("", "1")
    ]
    return " ".join([*parts, "uncached"] if row["variant"] == "uncached" else parts)


def exponent(values: Sequence[float], seconds: Sequence[float]) -> float:
    """Fit seconds = c * value ** exponent by least squares of the logarithms; NaN for fewer than two values."""
    if len(values) < 2:
        return float("nan")
    return float(np.polyfit(np.log(values), np.log(seconds), 1)[0])
