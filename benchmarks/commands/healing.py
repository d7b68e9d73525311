"""How well methods heal planted lesions, whose untouched twins are known, and what they leave of healthy tissue."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import records
from benchmarks.commands.options import add_data_arguments, listed, say, slices_of_command
from benchmarks.data.slices import SliceSet
from benchmarks.data.twins import with_twins
from benchmarks.protocol import healing, ledger, stages
from benchmarks.protocol.healing import HEALERS
from benchmarks.protocol.methods import Settings
from benchmarks.report import figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    add = parser.add_argument
    add("--methods", default="all", help="names separated by commas (default: all)")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--figure", type=Path, metavar="FILE.png", help="draw the healed slices of the first seed")


def run(arguments: argparse.Namespace) -> None:
    names = listed(arguments.methods, HEALERS, "method that heals")
    slices = slices_of_command(arguments)
    planted, twins = with_twins(slices)
    training, kept = slices.training(), arguments.cache / ledger.NAME
    say(
        f"{arguments.data}: {len(training)} slices to learn from, {len(planted)} with a planted lesion to heal"
    )
    drawn = largest_lesions(planted)
    cases = _bytes(
        {"scan": planted.images[drawn], "twin": twins.images[drawn], "lesion": planted.lesions[drawn]}
    )
    cases["titles"] = planted.kinds[drawn]
    machine = records.environment(arguments.device)
    for seed in arguments.seeds:
        for name in names:
            estimator = HEALERS[name].build(
                Settings(arguments.preset, seed, arguments.device, arguments.cache)
            )
            stages.fit(estimator, training.images, kept, training.patients)
            told = {"dataset": arguments.data, "method": name, "seed": seed, "preset": arguments.preset}
            told["device"] = machine["device"]
            by = {"commit": machine["commit"], **ledger.trained(kept, estimator)}
            rows = [told | row | by for row in healing.measure(estimator, planted, twins)]
            records.replace_rows(arguments.results / "healing.csv", rows)
            if seed == arguments.seeds[0]:
                cases |= _bytes({name: healing.heal(estimator, planted.images[drawn])})
            say(
                f"{name}, seed {seed}: {rows[0]['change_left_median']:.2f} of the change left, {rows[0]['psnr']:.1f} dB"
            )
    # Pictures of a real scan stay out of the repository.
    if arguments.data == "phantom":
        keep_cases(arguments.results / "healing_cases.npz", cases)
    if arguments.figure is not None:
        figures.draw_healing(cases, arguments.figure)


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
