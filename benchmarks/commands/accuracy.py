"""One protocol for every method: fit on healthy slices, choose parameters on val, report on test."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from benchmarks import records
from benchmarks.commands.options import add_data_arguments, listed, say, slices_of_command
from benchmarks.data.slices import SliceSet
from benchmarks.protocol import ledger, stages
from benchmarks.protocol.bootstrap import Resamples, precision_recall
from benchmarks.protocol.methods import METHODS, Settings
from benchmarks.protocol.stages import Outcome
from skmimood.runtime.code_digest import code_digest

OURS = "mimood"  # the method that others are compared with, and whose cases are drawn
_DRAWN = ("tumour", "all")  # slices and region whose curves are kept
_NO_MATTER = ("memory", "checkpoint_dir", "resume", "verbose", "device", "random_state", "steps")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    add = parser.add_argument
    add("--methods", default="all", help="names separated by commas (default: all)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add(
        "--again",
        action="store_true",
        help="score again what is finished; networks of the same code are kept",
    )


def run(arguments: argparse.Namespace) -> None:
    names = listed(arguments.methods, METHODS, "method")
    slices = slices_of_command(arguments)
    n_training, tumour, test = (len(slices.training()), slices.tumour("test"), slices.evaluated("test"))
    say(
        f"{arguments.data}: {n_training} slices to learn from, {len(tumour)} of {len(test)} test slices with lesions"
    )
    fingerprint = slices.fingerprint()
    finished: dict[str, list[Outcome]] = {}
    for seed in arguments.seeds:
        for name in names:
            outcome = outcome_of(name, seed, slices, fingerprint, arguments)
            finished.setdefault(name, []).append(outcome)
            write_run(arguments.results, arguments.data, name, outcome)
            say(f"{name}, seed {seed}: done")
    write_summary(arguments.results, arguments.data, arguments.seeds, finished)


def outcome_of(
    name: str, seed: int, slices: SliceSet, fingerprint: str, arguments: argparse.Namespace
) -> Outcome:
    """Return the outcome of a method: a finished one from the cache, or by fit, choice and test."""
    method, kept = METHODS[name], arguments.cache / ledger.NAME
    estimator = method.build(Settings(arguments.preset, seed, arguments.device, arguments.cache))
    machine = records.environment(arguments.device)
    named = {"seed": seed, "preset": arguments.preset, "device": machine["device"]}
    # The outcome's name changes with everything that it depends on, the code included.
    parameters = {
        key: value
        for key, value in estimator.get_params().items()
        if not key.endswith(_NO_MATTER) and not hasattr(value, "get_params")
    }
    code = [code_digest(__name__), *map(ledger.code_of, ledger.steps_of(estimator))]
    digest = joblib.hash(repr([fingerprint, name, named, sorted(parameters.items()), method.grid, code]))
    path = arguments.cache / "outcomes" / f"{slices.dataset}-{arguments.preset}-{name}-{seed}-{digest}.joblib"
    if path.exists() and not arguments.again:
        return joblib.load(path)
    seconds, chosen = stages.learn(estimator, method.grid, slices, kept)
    say(f"{name}, seed {seed}: fitted in {seconds:.0f} s, chose {chosen}")
    outcome = stages.evaluate(estimator, slices)
    # Pictures of a real scan stay out of the repository.
    if name == OURS and seed == arguments.seeds[0] and slices.dataset == "phantom":
        cases = arguments.results / f"{slices.dataset}_{arguments.preset}_cases.npz"
        save_cases(estimator, slices.tumour("test"), cases)
    named["commit"] = machine["commit"]
    outcome.run.update(
        named, **ledger.trained(kept, estimator), threads=machine["threads"], fit_seconds=seconds,
        n_training_slices=len(slices.training()), parameters=json.dumps(chosen),
        seconds_per_32_uncached=stages.seconds_per_32_uncached(estimator, slices.evaluated("test").images),
    )  # fmt: skip
    for row in outcome.rows:
        row.update(named)
    with records.replacing(path) as file:
        joblib.dump(outcome, file, compress=3)
    return outcome


def write_run(results: Path, data: str, name: str, outcome: Outcome) -> None:
    """Put the rows of one outcome into the tables of its data set."""
    named = {"dataset": data, "method": name}
    rows = [named | row for row in outcome.rows]
    records.replace_rows(results / f"{data}.csv", rows)
    records.replace_rows(results / f"{data}_runs.csv", [named | outcome.run])


def write_summary(
    results: Path, data: str, seeds: Sequence[int], finished: Mapping[str, Sequence[Outcome]]
) -> None:
    """Put intervals over all seeds, differences to ours, and the curves of the first seed into the tables."""
    intervals: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for slices, region in next(iter(finished.values()))[0].counts:
        place = {"dataset": data, "slices": slices, "region": region}
        counts = {
            name: [one.counts[slices, region] for one in outcomes] for name, outcomes in finished.items()
        }
        resamples = {name: Resamples.of(counts[name]) for name in finished}
        for name, outcomes in finished.items():
            run = outcomes[0].run
            told = {**place, "method": name, "preset": run["preset"], "device": run["device"]}
            of_seeds = told | {"seeds": " ".join(map(str, seeds))}
            intervals += _rows(of_seeds, resamples[name].intervals())
            if OURS in finished and name != OURS:
                gaps = resamples[OURS].intervals(minus=resamples[name])
                differences += _rows(of_seeds | {"method": OURS, "minus": name}, gaps)
            if (slices, region) == _DRAWN:
                points = zip(*precision_recall(counts[name][0]), strict=True)
                curves += [
                    told | {"seed": seeds[0], "recall": x.item(), "precision": y.item()} for x, y in points
                ]
    records.replace_rows(results / f"{data}_intervals.csv", intervals, records.SUMMARY_KEY)
    records.replace_rows(results / f"{data}_curves.csv", curves, records.SUMMARY_KEY)
    if differences:
        key = (*records.SUMMARY_KEY, "minus")
        records.replace_rows(results / f"{data}_differences.csv", differences, key)


def _rows(told: dict[str, Any], figures: dict[str, tuple[float, float, float]]) -> list[dict[str, Any]]:
    names = ("metric", "mean", "low", "high")
    return [told | dict(zip(names, (metric, *values), strict=True)) for metric, values in figures.items()]


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
