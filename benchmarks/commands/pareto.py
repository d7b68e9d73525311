"""Accuracy against time of MIM-OOD and AR restoration, as R, T and the sampling vary; bfloat16 against float32."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline

from benchmarks import records
from benchmarks.commands.options import add_data_arguments, listed, say, slices_of_command
from benchmarks.data.slices import SliceSet
from benchmarks.protocol import ledger, stages
from benchmarks.protocol.methods import METHODS, Settings
from benchmarks.timing.plain_reading import plain_maps
from benchmarks.timing.stopwatch import interleave
from skmimood import metrics
from skmimood.runtime.device import resolve_device, resolve_precision

_KEY = ("dataset", "preset", "seed", "device", "method")
PRECISIONS = ("float32", "bfloat16")
_TIMED = 32
_PATIENCE = 60.0
_PLAIN = "plain reading"

# What varies for each method: parameters of its last step. The first of a method is what is chosen on val for.
GRIDS: dict[str, list[dict[str, list[Any]]]] = {
    "mimood": [{"n_steps": [1, 2, 4, 8], "n_restorations": [1, 2, 4, 8]}],
    "ar": [{"n_restorations": [1, 2, 4, 8]}, {"n_restorations": [1, 4], "temperature": [0.5]}],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser, default="lgg")
    add = parser.add_argument
    add("--methods", default=",".join(GRIDS), help="names separated by commas (default: mimood,ar)")
    add("--seed", type=int, default=0)
    add("--repeats", type=int, default=3, help="timed runs of each variant (default: 3)")


def run(arguments: argparse.Namespace) -> None:
    names = listed(arguments.methods, GRIDS, "method")
    slices = slices_of_command(arguments)
    settings = Settings(arguments.preset, arguments.seed, arguments.device, arguments.cache)
    kept, machine = arguments.cache / ledger.NAME, records.environment(arguments.device)
    pipelines = {name: METHODS[name].build(settings) for name in names}
    for name, pipeline in pipelines.items():
        _, chosen = stages.learn(pipeline, METHODS[name].grid, slices, kept)
        say(f"{name}: {chosen}")
    told = {
        "dataset": arguments.data, "preset": arguments.preset, "seed": arguments.seed,
        **{key: machine[key] for key in ("device", "threads", "commit")},
    }  # fmt: skip
    rows = measure(pipelines, slices, resolve_device(arguments.device), repeats=arguments.repeats)
    rows = [told | ledger.trained(kept, pipelines[row["method"]]) | row for row in rows]
    records.replace_rows(arguments.results / f"{arguments.data}_pareto.csv", rows, _KEY)
    say(f"{len(rows)} variants")


def measure(
    pipelines: dict[str, Pipeline], slices: SliceSet, device: torch.device, *, repeats: int
) -> list[dict[str, Any]]:
    """Time all variants in turn; return their rows, with the accuracy on val, of the precisions also on test."""
    images = slices.tumour("val").images[:_TIMED]
    found = {
        (method, name): (copy.deepcopy(pipeline).set_params(**parameters), is_default)
        for method, pipeline in pipelines.items()
        for name, parameters, is_default in variants(method, pipeline)
    }
    subjects = {
        key: partial(plain_maps, pipeline, images)
        if _PLAIN in key
        else partial(pipeline.decision_function, images)
        for key, (pipeline, _) in found.items()
    }
    timings = interleave(subjects, device, repeats=repeats, patience=_PATIENCE)
    rows = []
    for (method, name), (pipeline, is_default) in found.items():
        seconds = timings[method, name].seconds * _TIMED / len(images)
        told = {"method": method, "variant": name, "is_default": is_default, "seconds_per_32": seconds}
        for split in ("val", "test") if name in PRECISIONS else ("val",):
            rows.append(told | {"split": split} | _row(pipeline, slices.tumour(split)))
        uncached = stages.seconds_per_32_uncached(pipeline, images) if is_default else None
        if uncached is not None:
            changed = {"variant": "uncached", "key_value_cache": False, "is_default": False}
            rows.append(rows[-1] | changed | {"seconds_per_32": uncached})
    return rows


def variants(name: str, pipeline: Pipeline) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield name, parameters and whether it is the default: the grid, the precisions, and MIM-OOD's plain reading."""
    last, known = pipeline.steps[-1][0], pipeline.get_params()
    precisions = [key for key in known if key.endswith("__precision")]
    axes = {f"{last}__{key}" for stage in GRIDS[name] for key in stage}
    default = {key: known[key] for key in axes} | dict.fromkeys(precisions, "auto")
    candidates = list(ParameterGrid(GRIDS[name]))
    settings = [default | {f"{last}__{key}": value for key, value in one.items()} for one in candidates]
    for candidate, parameters in zip(candidates, settings, strict=True):
        yield (
            ", ".join(f"{key} {candidate[key]}" for key in sorted(candidate)),
            parameters,
            parameters == default,
        )
    if default not in settings:
        yield "default", default, True
    for precision in PRECISIONS:
        yield precision, default | dict.fromkeys(precisions, precision), False
    if name == "mimood":
        published = {f"{last}__n_restorations": 4, f"{last}__n_steps": 8}
        yield _PLAIN, default | published | dict.fromkeys(precisions, "float32"), False


def _row(pipeline: Pipeline, tumour: SliceSet) -> dict[str, Any]:
    maps, last = pipeline.decision_function(tumour.images), pipeline[-1]
    parameters = last.get_params()
    precision = resolve_precision(last.get_params()["training__precision"], resolve_device(last.device))
    return {
        **{key: parameters.get(key) for key in ("n_restorations", "n_steps", "key_value_cache")},
        "precision": str(precision).removeprefix("torch."),
        "ap": metrics.average_precision(tumour.lesions, maps),
        "best_dice": metrics.best_dice(tumour.lesions, maps),
    }
