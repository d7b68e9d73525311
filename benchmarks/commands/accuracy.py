"""One protocol for every method: fit on healthy slices, choose parameters on val, report on test."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import records
from benchmarks.commands import cross_validation
from benchmarks.commands.options import add_data_arguments, listed, say, slices_of_command
from benchmarks.data.slices import SliceSet
from benchmarks.protocol import ledger, stages, summary
from benchmarks.protocol.methods import METHODS, Settings
from benchmarks.protocol.outcomes import outcome_of
from benchmarks.protocol.stages import Outcome

_DRAWN = "mimood"  # the method whose cases are drawn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    add = parser.add_argument
    add("--methods", default="all", help="names separated by commas (default: all)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--folds", type=int, metavar="N", help="cross-validate over all patients, whatever splits.csv says")
    add(
        "--fold",
        type=int,
        nargs="+",
        metavar="K",
        help="run these of the folds alone, 0 to N - 1 (default: all)",
    )
    add(
        "--again",
        action="store_true",
        help="score again what is finished; networks of the same code are kept",
    )


def run(arguments: argparse.Namespace) -> None:
    if arguments.folds is not None:
        return cross_validation.run(arguments)
    names = listed(arguments.methods, METHODS, "method")
    slices = slices_of_command(arguments)
    n_training, tumour, test = (len(slices.training()), slices.tumour("test"), slices.evaluated("test"))
    say(
        f"{arguments.data}: {n_training} slices to learn from, {len(tumour)} of {len(test)} test slices with lesions"
    )
    fingerprint = slices.fingerprint()
    finished: dict[str, dict[int, summary.Counts]] = {}
    for seed in arguments.seeds:
        for name in names:
            outcome = run_method(name, seed, slices, fingerprint, arguments)
            finished.setdefault(name, {})[seed] = outcome.counts
            write_run(arguments.results, arguments.data, name, outcome)
            say(f"{name}, seed {seed}: done")
    told = {"dataset": arguments.data, "preset": arguments.preset, "device": outcome.run["device"]}
    summary.write_summary(arguments.results, told, finished)


def run_method(
    name: str, seed: int, slices: SliceSet, fingerprint: str, arguments: argparse.Namespace
) -> Outcome:
    """Return the outcome of a method: a finished one from the cache, or by fit, choice and test."""
    method, kept = METHODS[name], arguments.cache / ledger.NAME
    settings = Settings(arguments.preset, seed, arguments.device, arguments.cache)

    def learn_and_test(estimator: Any) -> Outcome:
        seconds, chosen = stages.learn(estimator, method.grid, slices, kept)
        say(f"{name}, seed {seed}: fitted in {seconds:.0f} s, chose {chosen}")
        outcome = stages.evaluate(estimator, slices)
        # Pictures of a real scan stay out of the repository.
        if name == _DRAWN and seed == arguments.seeds[0] and slices.dataset == "phantom":
            cases = arguments.results / f"{slices.dataset}_{arguments.preset}_cases.npz"
            save_cases(estimator, slices.tumour("test"), cases)
        machine = records.environment(arguments.device)
        named = {"seed": seed, "preset": arguments.preset}
        named |= {key: machine[key] for key in ("device", "commit")}
        outcome.run.update(
            named, **ledger.trained(kept, estimator), threads=machine["threads"], fit_seconds=seconds,
            n_training_slices=len(slices.training()), parameters=json.dumps(chosen),
            seconds_per_32_uncached=stages.seconds_per_32_uncached(estimator, slices.evaluated("test").images),
        )  # fmt: skip
        for row in outcome.rows:
            row.update(named)
        return outcome

    folder = arguments.cache / "outcomes" / slices.dataset
    return outcome_of(name, method, settings, fingerprint, learn_and_test, folder, again=arguments.again)


def write_run(results: Path, data: str, name: str, outcome: Outcome) -> None:
    """Put the rows of one outcome into the tables of its data set."""
    named = {"dataset": data, "method": name}
    rows = [named | row for row in outcome.rows]
    records.replace_rows(results / f"{data}.csv", rows)
    records.replace_rows(results / f"{data}_runs.csv", [named | outcome.run])


def save_cases(estimator: Any, slices: SliceSet, path: Path) -> None:
    """Keep what a pipeline makes of the slice of the largest lesion of each kind, as bytes: arrays (n_kinds, H, W)."""
    areas = slices.lesions.sum((1, 2))
    chosen = slices[
        [int(np.argmax(np.where(slices.kinds == kind, areas, -1))) for kind in np.unique(slices.kinds)]
    ]
    scans = estimator[:-1].transform(chosen.images)
    maps, healed = estimator[-1].detect(scans)
    factor, (height, width) = scans.tokenizer.downsampling, chosen.images.shape[1:]
    tokens = np.kron(scans.anomaly, np.ones((1, factor, factor)))[:, :height, :width]
    parts = {
        "image": chosen.images, "tokens": tokens / max(tokens.max(), 1e-9), "healed": healed,
        "map": maps / max(maps.max(), 1e-9), "truth": chosen.lesions,
    }  # fmt: skip
    shades = {name: np.rint(255 * np.asarray(part)).astype(np.uint8) for name, part in parts.items()}
    with records.replacing(path) as file:
        np.savez_compressed(file, titles=chosen.kinds, **shades)
