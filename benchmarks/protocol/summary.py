"""What is told of all methods together: intervals over patients, differences to ours, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import records
from benchmarks.protocol.bootstrap import PatientCounts, Resamples, precision_recall

OURS = ("mimood", "mimood-default")  # methods of which each of the others is subtracted
_DRAWN = ("tumour", "all")  # slices and region whose curves are kept

Place = tuple[str, str]  # slices and region
Counts = Mapping[Place, PatientCounts]


def write_summary(
    results: Path, told: Mapping[str, str], methods: Mapping[str, Mapping[int, Counts]]
) -> None:
    """Put intervals over all seeds of each method, differences to ours, and curves of the first seed into the tables.

    ``told`` are the columns dataset, preset and device; ``methods`` has the counts of each seed of each method.
    """
    intervals: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    places = dict.fromkeys(
        place for seeds in methods.values() for counts in seeds.values() for place in counts
    )
    for place in places:
        counts = {name: {seed: one[place] for seed, one in seeds.items()} for name, seeds in methods.items()}
        resamples = {name: Resamples.of([*seeds.values()]) for name, seeds in counts.items()}
        for name, seeds in counts.items():
            here = {**told, "method": name, "slices": place[0], "region": place[1]}
            of_seeds = here | {"seeds": " ".join(map(str, seeds))}
            intervals += _rows(of_seeds, resamples[name].intervals())
            for rival in counts if name in OURS else ():
                if _is_compared(name, rival, counts):
                    gaps = resamples[name].intervals(minus=resamples[rival])
                    differences += _rows(of_seeds | {"minus": rival}, gaps)
            if place == _DRAWN:
                first, of_first = next(iter(seeds.items()))
                points = zip(*precision_recall(of_first), strict=True)
                curves += [
                    here | {"seed": first, "recall": x.item(), "precision": y.item()} for x, y in points
                ]
    table = results / str(told["dataset"])
    records.replace_rows(table.with_name(f"{table.name}_intervals.csv"), intervals, records.SUMMARY_KEY)
    records.replace_rows(table.with_name(f"{table.name}_curves.csv"), curves, records.SUMMARY_KEY)
    if differences:
        key = (*records.SUMMARY_KEY, "minus")
        records.replace_rows(table.with_name(f"{table.name}_differences.csv"), differences, key)


def _is_compared(ours: str, rival: str, counts: Mapping[str, Mapping[int, PatientCounts]]) -> bool:
    """Tell whether a difference says something: to a method before ours, it was told there; slices must be the same."""
    if rival == ours or (rival in OURS and OURS.index(rival) < OURS.index(ours)):
        return False
    first, second = (next(iter(counts[name].values())) for name in (ours, rival))
    return first.is_of_the_same_slices(second)


def _rows(told: dict[str, Any], figures: dict[str, tuple[float, float, float]]) -> list[dict[str, Any]]:
    names = ("metric", "mean", "low", "high")
    return [told | dict(zip(names, (metric, *values), strict=True)) for metric, values in figures.items()]


def save_counts(results: Path, told: Mapping[str, Any], counts: Counts) -> None:
    """Keep the counts of one seed of a method, so that one that is added later is compared without training it again.

    ``told`` are the columns dataset, method, seed, preset and device.
    """
    arrays: dict[str, Any] = {"device": np.array(told["device"])}
    for place, one in counts.items():
        for field in fields(one):
            values = getattr(one, field.name)
            kept = values if values.dtype.kind == "U" else values.astype(np.uint32)
            arrays["/".join((*place, field.name))] = kept
    with records.replacing(_file(results, told)) as file:
        np.savez_compressed(file, **arrays)


def load_counts(
    results: Path, told: Mapping[str, str], methods: Sequence[str]
) -> dict[str, dict[int, Counts]]:
    """Read the counts of all seeds of all methods of a data set, preset and device."""
    found: dict[str, dict[int, Counts]] = {}
    for name in methods:
        here = {**told, "method": name, "seed": "*"}
        for path in sorted(_file(results, here).parent.glob(_file(results, here).name)):
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            if str(arrays.pop("device")) == told["device"]:
                seed = int(path.stem.rpartition("-")[2])
                found.setdefault(name, {})[seed] = _read(arrays)
    return found


def _file(results: Path, told: Mapping[str, Any]) -> Path:
    name = "-".join(str(told[key]) for key in ("dataset", "method", "preset", "seed"))
    return results / "counts" / f"{name}.npz"


def _read(arrays: Mapping[str, np.ndarray]) -> Counts:
    parts: dict[Place, dict[str, np.ndarray]] = {}
    for key, values in arrays.items():
        slices, region, name = key.split("/")
        parts.setdefault((slices, region), {})[name] = values
    return {place: PatientCounts(**values) for place, values in parts.items()}
