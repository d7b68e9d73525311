"""The tables of `accuracy` and `ablation`, read and divided by data set, preset and device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from benchmarks import records

Rows = Sequence[dict[str, str]]
Place = dict[str, str]

DATA_TITLES = {
    "lgg-cv": "TCGA-LGG, FLAIR, all patients cross-validated",
    "lgg-cv-3d": "The same, maps averaged across neighbouring slices",
    "ixi-synthetic-cv": "Lesions planted into IXI, T1, all subjects cross-validated",
    "ixi-grown-cv": "Gliomas grown in IXI, T1, all subjects cross-validated",
    "phantom": "Brain phantom (T2)", "lgg": "TCGA-LGG, FLAIR", "ixi-synthetic": "Lesions planted into IXI, T1",
    "ixi-grown": "Gliomas grown in IXI, T1", "brats": "BraTS", "mslub": "MSLUB", "folder": "Folder of scans and masks",
}  # fmt: skip


def place_of(level: str, slices: str = "tumour", region: str = "all", split: str = "test") -> Place:
    """Return the columns that say what a row is of."""
    return {"level": level, "slices": slices, "region": region, "split": split}


PIXELS = place_of("pixel")


def matching(rows: Rows, wanted: Mapping[str, str]) -> Rows:
    """Return the rows with these cells."""
    return [row for row in rows if wanted.items() <= row.items()]


@dataclass(frozen=True)
class Run:
    """All results of one data set, preset and device, as lines of the tables."""

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
    def n_folds(self) -> int:
        """In how many folds all patients were tested on; 0 without cross-validation."""
        return len({row["fold"] for row in self.runs if row.get("fold")})

    @property
    def methods(self) -> list[str]:
        """Names of the methods, the highest mean AP over pixels of tumour slices first."""
        names = dict.fromkeys(row["method"] for row in self.rows)
        return sorted(names, key=lambda name: -(self.mean(name, "ap") or 0.0))

    @property
    def region(self) -> str:
        """What is evaluated besides all pixels, ``"interior"`` or ``"brain"``."""
        named = {row["region"] for row in self.rows if row["level"] == "pixel"} - {"all"}
        return min(named, default="all")

    def values(self, method: str, metric: str, place: Place = PIXELS) -> list[float]:
        """Return a figure of each seed."""
        rows = matching(self.rows, {"method": method, **place})
        return [float(row[metric]) for row in rows if row.get(metric)]

    def mean(self, method: str, metric: str, place: Place = PIXELS) -> float | None:
        """Return the mean over seeds, None without any."""
        values = self.values(method, metric, place)
        return mean(values) if values else None

    def interval(self, method: str, metric: str, place: Place = PIXELS) -> tuple[float, float] | None:
        """Return the interval of a figure over pixels of test slices, by the seeds of the mean beside it."""
        wanted = {"method": method, "metric": metric, "slices": place["slices"], "region": place["region"]}
        seeds = {row["seed"] for row in self.rows if row["method"] == method}
        for row in matching(self.intervals, wanted):
            if set(row["seeds"].split()) == seeds:
                return float(row["low"]), float(row["high"])
        return None

    def cell(self, method: str, metric: str, place: Place = PIXELS, *, interval: bool = False) -> str:
        """Return mean, standard deviation over seeds and, if asked for, the interval, as text."""
        values = self.values(method, metric, place)
        if not values:
            return ""
        deviation = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
        bounds = self.interval(method, metric, place) if interval else None
        return f"{mean(values):.3f}{deviation}" + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "")


def load_runs(results: Path) -> list[Run]:
    """Read all tables of a folder, those over all patients first."""
    runs = []
    for dataset in DATA_TITLES:
        parts = [
            records.read_table(results / f"{dataset}{suffix}.csv")
            for suffix in ("", "_runs", "_intervals", "_curves", "_differences", "_ablation")
        ]
        for preset, device in dict.fromkeys((row["preset"], row["device"]) for row in parts[0]):
            same = {"preset": preset, "device": device}
            runs.append(Run(dataset, preset, device, *(matching(rows, same) for rows in parts)))
    return runs


def is_secondary(run: Run, runs: Sequence[Run]) -> bool:
    """Tell whether another run says more: a cross-validation, or that of maps that are not filtered across slices."""
    return run.dataset.endswith("-3d") or any(
        (other.dataset, other.preset) == (f"{run.dataset}-cv", run.preset) for other in runs
    )
