"""Which slices and patients of head CT have a haemorrhage: all methods, fitted on healthy patients."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import records
from benchmarks.commands.options import add_slices_arguments, listed, say, slices_of_command
from benchmarks.data.slices import SliceSet
from benchmarks.protocol import diagnosis, ledger, stages
from benchmarks.protocol.diagnosis import Counts
from benchmarks.protocol.methods import METHODS, Settings
from benchmarks.protocol.outcomes import outcome_of
from benchmarks.protocol.summary import OURS

BOTH = "val and test"  # a method that chooses nothing is tested on the patients of val too
_DIFFERENCES_KEY = (*records.SUMMARY_KEY, "split", "minus")

Outcome = tuple[list[dict[str, Any]], dict[str, Counts]]  # rows of the table; counts of each split


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_slices_arguments(parser)
    parser.set_defaults(data="ct", healthy=None, modality=None)
    add = parser.add_argument
    add("--methods", default="all", help="names separated by commas (default: all)")
    add("--seeds", type=int, nargs="+", default=[0])


def run(arguments: argparse.Namespace) -> None:
    names = listed(arguments.methods, METHODS, "method")
    slices = slices_of_command(arguments)
    for split in ("train", "val", "test"):
        part = slices[slices.splits == split]
        say(f"ct, {split}: {len(part)} slices, {(part.kinds != '').sum()} with haemorrhage")
    fingerprint = slices.fingerprint()
    finished: dict[str, list[dict[str, Counts]]] = {}
    for seed in arguments.seeds:
        for name in names:
            rows, counts = _run_method(name, seed, slices, fingerprint, arguments)
            records.replace_rows(arguments.results / "ct.csv", rows)
            finished.setdefault(name, []).append(counts)
            together = (row for row in rows if row["kind"] == diagnosis.ALL)
            told = (
                f"{row['split']}, {row['level']}s by {row['score']} {row['auroc']:.3f}" for row in together
            )
            say(f"{name}, seed {seed}: AUROC of {'; '.join(told)}")
    run_of = {name: rows[0][name] for name in ("dataset", "preset", "device")}
    gaps = [run_of | {"seeds": " ".join(map(str, arguments.seeds))} | row for row in _differences(finished)]
    if gaps:
        records.replace_rows(arguments.results / "ct_differences.csv", gaps, _DIFFERENCES_KEY)


def _run_method(
    name: str, seed: int, slices: SliceSet, fingerprint: str, arguments: argparse.Namespace
) -> Outcome:
    """Return the outcome of a method: a finished one from the cache, or by fit, choice and test."""
    method, kept = METHODS[name], arguments.cache / ledger.NAME
    settings = Settings(arguments.preset, seed, arguments.device, arguments.cache)

    def learn_and_test(estimator: Any) -> Outcome:
        training, val = slices.training(), slices[slices.splits == "val"]
        seconds = stages.fit(estimator, training.images, kept, training.patients)
        chosen, _ = stages.select(estimator, method.grid, val, max_slices=len(val), ap=diagnosis.slice_ap)
        say(f"{name}, seed {seed}: fitted in {seconds:.0f} s, chose {chosen}")
        tested = {"test": slices[slices.splits == "test"]}
        if not method.grid:
            tested[BOTH] = slices[slices.splits != "train"]
        counts = {
            split: diagnosis.count_findings(diagnosis.scores_of(estimator, part), part)
            for split, part in tested.items()
        }
        machine = records.environment(arguments.device)
        named = {"dataset": "ct", "method": name, "seed": seed, "preset": arguments.preset}
        named["device"] = machine["device"]
        run = {"fit_seconds": seconds, "parameters": json.dumps(chosen), "commit": machine["commit"]}
        run |= ledger.trained(kept, estimator)
        rows = [
            {**named, "split": split, **row, **run}
            for split, of_split in counts.items()
            for row in diagnosis.rows_of(of_split)
        ]
        return rows, counts

    return outcome_of(
        name, method, settings, fingerprint, learn_and_test, arguments.cache / "outcomes" / "ct"
    )


def _differences(finished: Mapping[str, Sequence[dict[str, Counts]]]) -> Iterator[dict[str, Any]]:
    """Yield ours minus each rival in every split that both were tested on, over the same draws of patients."""
    for ours in OURS:
        for rival, of_rival in finished.items() if ours in finished else ():
            for split in of_rival[0] if rival not in OURS else ():
                if split in finished[ours][0]:
                    of_split = [[one[split] for one in seeds] for seeds in (finished[ours], of_rival)]
                    for row in diagnosis.differences(*of_split):
                        yield {"method": ours, "minus": rival, "split": split, **row}
