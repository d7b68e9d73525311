"""One protocol for every method: fit on healthy slices, choose parameters on val, report on test."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import records
from benchmarks.commands.options import Log, add_data_arguments, listed, slices_of_command, told_in_a_line
from benchmarks.data.slices import SliceSet
from benchmarks.protocol import ledger, stages
from benchmarks.protocol.bootstrap import Resamples, precision_recall
from benchmarks.protocol.methods import METHODS, Method, Settings
from benchmarks.protocol.stages import Outcome
from skmimood.runtime.code_digest import code_digest

OURS = "mimood"  # the method that others are compared with, and whose cases are drawn
_DRAWN = ("tumour", "all")  # slices and region whose curves are kept
_UNTOLD = ("memory", "checkpoint_dir", "resume", "verbose", "device", "random_state")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    add = parser.add_argument
    add("--methods", default="all", help="names separated by commas (default: all)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    again = "score again what is finished; networks of the same code are kept"
    add("--again", action="store_true", help=again)
    add("--verbose", action="store_true", help="show progress bars of trainings")


@told_in_a_line
def run(arguments: argparse.Namespace) -> None:
    names = listed(arguments.methods, METHODS, "method")
    say = Log()
    slices = slices_of_command(arguments)
    say(f"{arguments.data}: {describe(slices)}")
    # Pictures of a real scan stay out of the repository.
    shown_in = arguments.results if arguments.data == "phantom" else arguments.cache
    shown = shown_in / f"{arguments.data}_{arguments.preset}_cases.npz"

    def keep_cases(name: str, seed: int, estimator: Any) -> None:
        if name == OURS and seed == arguments.seeds[0]:
            save_cases(estimator, slices.tumour("test"), shown)

    runner = Runner(
        slices, arguments.preset, arguments.device, arguments.cache, say, keep_cases, arguments.again
    )
    finished: dict[str, list[Outcome]] = {}
    for seed in arguments.seeds:
        for name in names:
            outcome = runner.outcome(name, METHODS[name], seed, verbose=arguments.verbose)
            finished.setdefault(name, []).append(outcome)
            write_run(arguments.results, arguments.data, name, outcome)
            say(f"{name}, seed {seed}: {_headline(outcome)}")
    write_summary(arguments.results, arguments.data, arguments.seeds, finished)
    say(f"intervals over {len(arguments.seeds)} seed(s)")


class Runner:
    """Runs methods on one data set and keeps finished outcomes, networks and checkpoints in ``cache``.

    ``say`` gets a line for each stage; ``tested`` gets name, seed and estimator of each method that was tested, and not
    those of finished ones. With ``again``, outcomes that are there already are computed once more.
    """

    def __init__(
        self, slices: SliceSet, preset: str, device: str, cache: Path, say: Callable[[str], None],
        tested: Callable[[str, int, Any], None], again: bool = False,
    ) -> None:  # fmt: skip
        self.slices, self.preset, self.device, self.cache = slices, preset, device, cache
        self.say, self.tested, self.again = say, tested, again
        self.fingerprint = slices.fingerprint()
        self.ledger = cache / ledger.NAME

    def outcome(self, name: str, method: Method, seed: int, *, verbose: bool = False) -> Outcome:
        """Return the outcome of a method: a finished one, or by fit, choice and test."""
        estimator = method.build(Settings(self.preset, seed, self.device, self.cache, verbose))
        machine = records.environment(self.device)
        path = self.cache / "outcomes" / f"{self._key(name, method, seed, estimator, machine['device'])}.npz"
        if path.exists() and not self.again:
            return Outcome.load(path)
        training = self.slices.training_images()
        seconds = stages.fit(estimator, training, self.ledger, self.slices.training_patients())
        self.say(f"{name}, seed {seed}: fitted on {len(training)} slices")
        chosen, trials = stages.select(estimator, method.grid, self.slices.tumour("val"))
        self.say(f"{name}, seed {seed}: chose {chosen} of {len(trials)}")
        outcome = stages.evaluate(estimator, self.slices)
        self.tested(name, seed, estimator)
        test = self.slices.evaluated("test").images
        named = {"seed": seed, "preset": self.preset, **{key: machine[key] for key in ("device", "commit")}}
        outcome.run.update(
            named, **ledger.trained(self.ledger, estimator), threads=machine["threads"], fit_seconds=seconds,
            n_training_slices=len(training),
            seconds_per_32_uncached=stages.seconds_per_32_uncached(estimator, test),
            parameters=json.dumps(chosen), trials=trials,
        )  # fmt: skip
        for row in outcome.rows:
            row.update(named)
        outcome.save(path)
        return outcome

    def _key(self, name: str, method: Method, seed: int, estimator: Any, device: str) -> str:
        """Return a name for the outcome that changes with everything that it depends on, the code included."""
        parameters = {
            key: value if isinstance(value, str | float | int | bool | None) else repr(value)
            for key, value in estimator.get_params().items()
            if not key.endswith(_UNTOLD) and not hasattr(value, "get_params") and key != "steps"
        }
        code = [code_digest(__name__), *map(ledger.code_of, ledger.steps_of(estimator))]
        told = [self.fingerprint, name, seed, self.preset, device, parameters, repr(method.grid), code]
        digest = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8).hexdigest()
        return f"{self.slices.dataset}-{self.preset}-{name}-{seed}-{digest}"


def describe(slices: SliceSet) -> str:
    """Say what there is to learn from and to evaluate."""
    parts = [f"{len(slices.training_images())} slices to learn from"]
    for split in ("val", "test"):
        tumour, evaluated = slices.tumour(split), slices.evaluated(split)
        parts.append(f"{split}: {len(tumour)} tumour slices and {len(evaluated) - len(tumour)} others")
    return f"{'; '.join(parts)}; pixels of {slices.spacing:.3g} mm"


def _headline(outcome: Outcome) -> str:
    for row in outcome.rows:
        if (row["split"], row["slices"], row["level"], row["region"]) == ("test", "tumour", "pixel", "all"):
            return f"best Dice {row['best_dice']:.3f}, AP {row['ap']:.3f} on tumour slices of test"
    return "no tumour slices"


def write_run(results: Path, data: str, name: str, outcome: Outcome) -> None:
    """Put the rows of one outcome into the tables of its data set."""
    named = {"dataset": data, "method": name}
    rows = [named | row for row in outcome.rows]
    records.replace_rows(results / f"{data}.csv", rows, records.COLUMNS)
    records.replace_rows(results / f"{data}_runs.csv", [named | outcome.run], records.RUN_COLUMNS)


def write_summary(
    results: Path, data: str, seeds: Sequence[int], finished: Mapping[str, Sequence[Outcome]]
) -> None:
    """Put intervals over all seeds, differences to ours, and the curves of the first seed into the tables."""
    lines: list[dict[str, Any]] = []
    gaps: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    for slices, region in next(iter(finished.values()))[0].counts:
        place = {"dataset": data, "slices": slices, "region": region, "seeds": " ".join(map(str, seeds))}
        resamples = {
            name: Resamples.of([outcome.counts[slices, region] for outcome in outcomes])
            for name, outcomes in finished.items()
        }
        for name, outcomes in finished.items():
            run = outcomes[0].run
            told = {**place, "method": name, "preset": run["preset"], "device": run["device"]}
            lines += _interval_lines(told, resamples[name].intervals())
            if OURS in finished and name != OURS:
                told_gap = {**told, "method": OURS, "minus": name}
                gaps += _interval_lines(told_gap, resamples[OURS].intervals(minus=resamples[name]))
            if (slices, region) == _DRAWN:
                curve = zip(*precision_recall(outcomes[0].counts[slices, region]), strict=True)
                first = {**told, "seed": seeds[0]}
                points += [{**first, "recall": float(x), "precision": float(y)} for x, y in curve]
    key = records.SUMMARY_KEY
    records.replace_rows(results / f"{data}_intervals.csv", lines, records.INTERVAL_COLUMNS, key)
    records.replace_rows(results / f"{data}_curves.csv", points, records.CURVE_COLUMNS, key)
    if gaps:
        columns = records.DIFFERENCE_COLUMNS
        records.replace_rows(results / f"{data}_differences.csv", gaps, columns, (*key, "minus"))


def _interval_lines(
    told: Mapping[str, Any], figures: Mapping[str, tuple[float, float, float]]
) -> list[dict[str, Any]]:
    return [
        {**told, "metric": metric, "mean": mean, "low": low, "high": high}
        for metric, (mean, low, high) in figures.items()
    ]


def save_cases(estimator: Any, slices: SliceSet, path: Path, *, n_cases: int = 5) -> None:
    """Keep what a pipeline makes of some slices with lesions, as bytes: arrays (n_cases, H, W).

    There is one slice of each kind of lesion, else of evenly spread patients: that of the largest lesion area.
    """
    has_kinds = any(slices.kinds)
    groups = slices.kinds if has_kinds else slices.patients
    areas = slices.lesions.sum((1, 2))
    names = np.unique(groups)
    names = names[np.linspace(0, len(names) - 1, min(n_cases, len(names))).astype(int)]
    chosen = slices[[int(np.argmax(np.where(groups == name, areas, -1))) for name in names]]
    scans = estimator[:-1].transform(chosen.images)
    maps, healed = estimator[-1].detect(scans)
    factor, (height, width) = scans.tokenizer.downsampling, chosen.images.shape[1:]
    tokens = np.kron(scans.anomaly, np.ones((1, factor, factor)))[:, :height, :width]
    parts = {
        "image": chosen.images, "tokens": tokens / max(tokens.max(), 1e-9), "healed": healed,
        "map": maps / max(maps.max(), 1e-9), "truth": chosen.lesions,
    }  # fmt: skip
    shades = {name: np.rint(255 * np.asarray(part)).astype(np.uint8) for name, part in parts.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, titles=chosen.kinds if has_kinds else np.full(len(chosen), ""), **shades)
