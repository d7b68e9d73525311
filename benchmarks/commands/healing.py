"""How well methods heal planted lesions, whose untouched twins are known, and what they leave of healthy tissue."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import records
from benchmarks.commands.options import add_data_arguments, listed, say, slices_of_command
from benchmarks.data.folds import Folds
from benchmarks.data.slices import SliceSet
from benchmarks.data.twins import with_twins
from benchmarks.protocol import healing, ledger, stages
from benchmarks.protocol.healing import HEALERS, Healed
from benchmarks.protocol.methods import Settings
from benchmarks.report import figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    add = parser.add_argument
    add("--methods", default="all", help="names separated by commas (default: all)")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--folds", type=int, metavar="N", help="heal the test patients of each fold, as in accuracy --folds")
    add("--figure", type=Path, metavar="FILE.png", help="draw the healed slices of the first seed")


def run(arguments: argparse.Namespace) -> None:
    names = listed(arguments.methods, HEALERS, "method that heals")
    slices = slices_of_command(arguments)
    parts, dataset, tested = [slices], arguments.data, ["val", "test"]
    if arguments.folds is not None:
        folds = Folds(slices, arguments.folds)
        parts, dataset, tested = [folds[i] for i in range(folds.n_folds)], f"{dataset}-cv", ["test"]
    training = [part.training() for part in parts]
    pairs = [with_twins(part, tested) for part in parts]
    counts = ", ".join(str(len(one)) for one in training)
    say(
        f"{dataset}: {counts} slices to learn from, {sum(len(one) for one, _ in pairs)} with a lesion to heal"
    )
    planted, twins = pairs[0]
    drawn = largest_lesions(planted)
    cases = _bytes({name: one[drawn] for name, one in (
        ("scan", planted.images), ("twin", twins.images), ("lesion", planted.lesions),
    )})  # fmt: skip
    cases["titles"] = planted.kinds[drawn]
    machine = records.environment(arguments.device)
    for seed in arguments.seeds:
        for name in names:
            fitted = [_fitted(name, seed, one, arguments) for one in training]
            healed = [Healed.by(one, *pair) for one, pair in zip(fitted, pairs, strict=True)]
            told = {"dataset": dataset, "method": name, "seed": seed, "preset": arguments.preset}
            told |= {"device": machine["device"], "commit": machine["commit"]}
            told |= ledger.trained(arguments.cache / ledger.NAME, fitted[0])
            rows = [told | row for row in healing.measure(Healed.joined(healed))]
            records.replace_rows(arguments.results / "healing.csv", rows)
            if seed == arguments.seeds[0]:
                cases |= _bytes({name: healed[0].of_planted[drawn]})
            left, psnr = rows[0]["change_left_median"], rows[0]["psnr"]
            say(f"{name}, seed {seed}: {left:.2f} of the change left, {psnr:.1f} dB")
    # Pictures of a real scan stay out of the repository.
    if arguments.data == "phantom":
        keep_cases(arguments.results / "healing_cases.npz", cases)
    if arguments.figure is not None:
        figures.draw_healing(cases, arguments.figure)


def _fitted(name: str, seed: int, training: SliceSet, arguments: argparse.Namespace) -> Any:
    estimator = HEALERS[name].build(Settings(arguments.preset, seed, arguments.device, arguments.cache))
    stages.fit(estimator, training.images, arguments.cache / ledger.NAME, training.patients)
    return estimator


def largest_lesions(planted: SliceSet) -> np.ndarray:
    """Return which slice has the largest lesion of each kind."""
    areas = planted.lesions.sum((1, 2))
    return np.array(
        [np.argmax(np.where(planted.kinds == kind, areas, -1)) for kind in np.unique(planted.kinds)]
    )


def _bytes(parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.rint(255 * np.asarray(part)).astype(np.uint8) for name, part in parts.items()}


def keep_cases(path: Path, cases: dict[str, np.ndarray]) -> None:
    """Write what methods make of some slices; what others make of the same slices stays in the file."""
    others: dict[str, Any] = {}
    if path.exists():
        with np.load(path, allow_pickle=False) as kept:
            if np.array_equal(kept["scan"], cases["scan"]):
                others = dict(kept)
    with records.replacing(path) as file:
        np.savez_compressed(file, **others | cases)
