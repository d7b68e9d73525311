"""One protocol for every method: fit on healthy slices, choose parameters on val, report on test."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ledger, protocol, records, tables
from benchmarks.bootstrap import Resamples, precision_recall
from benchmarks.figures import save_cases
from benchmarks.methods import METHODS, Method, Settings, named_methods
from benchmarks.protocol import Outcome
from benchmarks.slices import SliceSet
from benchmarks.sources import DATA, open_slices
from skmimood.exceptions import SkmimoodError
from skmimood.runtime.code_digest import code_digest

PRESETS = ("tiny", "small", "paper")
OURS = "mimood"  # the method that others are compared with, and whose cases are drawn
_DRAWN = ("tumour", "all")  # slices and region whose curves are kept
_UNTOLD = ("memory", "checkpoint_dir", "resume", "verbose", "device", "random_state")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    parser.add_argument("--methods", default="all", help="names separated by commas (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--again",
        action="store_true",
        help="score again what is finished; networks of the same code are kept",
    )
    parser.add_argument("--verbose", action="store_true", help="show progress bars of trainings")


def add_data_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add what says which slices are used, by networks of which preset, and where everything is kept."""
    parser.add_argument("--data", required=default is None, default=default, choices=DATA)
    parser.add_argument("--preset", default="tiny", choices=PRESETS)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--root",
        help="folder of the data set with its splits.csv, or one that holds it as lgg/, ixi/ "
        "(default: $SKMIMOOD_DATA, else ../shared/data)",
    )
    parser.add_argument("--healthy", help="healthy scans to fit on, where splits.csv has no split 'train'")
    parser.add_argument("--modality", help="contrast, where the data set has several (t1, t2, flair, ...)")
    parser.add_argument(
        "--slices", type=Path, metavar="FILE.npz", help="read the slices from this file, or write it"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/benchmark"), help="keeps slices, networks, outcomes"
    )
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="folder of the tables")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")


def told_in_a_line(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Let a command end with one line where the user's input is at fault."""

    def run(arguments: argparse.Namespace) -> None:
        try:
            command(arguments)
        except SkmimoodError as error:
            raise SystemExit(f"error: {error}") from None

    return run


def slices_of_command(arguments: argparse.Namespace) -> SliceSet:
    """Note the code, set the threads, and open the slices that `add_data_arguments` asked for."""
    from skmimood.pipeline import PRESET_IMAGE_SIZE

    ledger.read_code()
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    return open_slices(
        arguments.data, PRESET_IMAGE_SIZE[arguments.preset], root=arguments.root, healthy=arguments.healthy,
        modality=arguments.modality, cache=arguments.cache, file=arguments.slices,
    )  # fmt: skip


@told_in_a_line
def run(arguments: argparse.Namespace) -> None:
    names = named_methods(arguments.methods)
    say = Log()
    slices = slices_of_command(arguments)
    say(f"{arguments.data}: {describe(slices)}")
    shown = f"{arguments.data}_{arguments.preset}_cases.npz"
    # Pictures of a real scan stay out of the repository.
    shown_in = arguments.results if arguments.data == "phantom" else arguments.cache

    def keep_cases(name: str, seed: int, estimator: Any) -> None:
        if name == OURS and seed == arguments.seeds[0]:
            save_cases(estimator, slices.tumour("test"), shown_in / shown)

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


class Log:
    """Prints lines with the seconds since the last one."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self, line: str) -> None:
        """Print a line."""
        now = time.perf_counter()
        print(f"[{now - self._last:7.1f} s] {line}", flush=True)
        self._last = now


class Runner:
    """Runs methods on one data set and keeps finished outcomes.

    Parameters
    ----------
    slices : SliceSet
        The data set.
    preset : str
        Of the networks.
    device : str
        Where they run.
    cache : Path
        Keeps networks, checkpoints and outcomes.
    say : callable
        Gets a line for each stage.
    tested : callable
        Gets name, seed and estimator of each method that was tested, and not those of finished ones.
    again : bool, default=False
        Whether to compute outcomes that are there already.
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
        seconds = protocol.fit(estimator, training, self.ledger, self.slices.training_patients())
        self.say(f"{name}, seed {seed}: fitted on {len(training)} slices")
        chosen, trials = protocol.select(estimator, method.grid, self.slices.tumour("val"))
        self.say(f"{name}, seed {seed}: chose {chosen} of {len(trials)}")
        outcome = protocol.evaluate(estimator, self.slices)
        self.tested(name, seed, estimator)
        test = self.slices.evaluated("test").images
        named = {
            "seed": seed,
            "device": machine["device"],
            "preset": self.preset,
            "commit": machine["commit"],
        }
        outcome.run.update(
            named, **ledger.trained(self.ledger, estimator), threads=machine["threads"], fit_seconds=seconds,
            n_training_slices=len(training),
            seconds_per_32_uncached=protocol.seconds_per_32_uncached(estimator, test),
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
    tables.replace_rows(results / f"{data}.csv", rows, tables.COLUMNS)
    tables.replace_rows(results / f"{data}_runs.csv", [named | outcome.run], tables.RUN_COLUMNS)


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
            curve = precision_recall(outcomes[0].counts[slices, region])
            for x, y in zip(*curve, strict=True) if (slices, region) == _DRAWN else ():
                points.append({**told, "seed": seeds[0], "recall": float(x), "precision": float(y)})
    key = tables.SUMMARY_KEY
    tables.replace_rows(results / f"{data}_intervals.csv", lines, tables.INTERVAL_COLUMNS, key)
    tables.replace_rows(results / f"{data}_curves.csv", points, tables.CURVE_COLUMNS, key)
    if gaps:
        columns = tables.DIFFERENCE_COLUMNS
        tables.replace_rows(results / f"{data}_differences.csv", gaps, columns, (*key, "minus"))


def _interval_lines(
    told: Mapping[str, Any], figures: Mapping[str, tuple[float, float, float]]
) -> list[dict[str, Any]]:
    return [
        {**told, "metric": metric, "mean": mean, "low": low, "high": high}
        for metric, (mean, low, high) in figures.items()
    ]
