"""Accuracy against time of MIM-OOD and AR restoration, as R, T and the sampling vary; bfloat16 against float32."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline

from benchmarks import records
from benchmarks.commands.options import Log, add_data_arguments, listed, slices_of_command, told_in_a_line
from benchmarks.data.slices import SliceSet
from benchmarks.protocol import ledger, stages
from benchmarks.protocol.methods import METHODS, Settings
from benchmarks.timing.plain_reading import plain_maps
from benchmarks.timing.stopwatch import interleave
from skmimood import metrics
from skmimood.runtime.device import resolve_device, resolve_precision

# Older rows alone have "n_passes" and "order".
COLUMNS = (
    "dataset", "preset", "seed", "method", "variant", "split", "n_restorations", "n_steps", "n_passes", "order",
    "key_value_cache", "precision", "is_default", "ap", "best_dice", "seconds_per_32", "device", "threads",
    "trained", "trained_code", "commit",
)  # fmt: skip
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


class Variant(NamedTuple):
    """One setting of a method: its name, parameters of the whole pipeline, and whether it is the method as it comes."""

    name: str
    parameters: dict[str, Any]
    is_default: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser, default="lgg")
    add = parser.add_argument
    add("--methods", default=",".join(GRIDS), help="names separated by commas (default: mimood,ar)")
    add("--seed", type=int, default=0)
    add("--repeats", type=int, default=3, help="timed runs of each variant (default: 3)")


@told_in_a_line
def run(arguments: argparse.Namespace) -> None:
    names = listed(arguments.methods, GRIDS, "method")
    say = Log()
    slices = slices_of_command(arguments)
    settings = Settings(arguments.preset, arguments.seed, arguments.device, arguments.cache)
    kept, machine = arguments.cache / ledger.NAME, records.environment(arguments.device)
    pipelines, trained = {}, {}
    for name in names:
        pipelines[name] = METHODS[name].build(settings)
        stages.fit(pipelines[name], slices.training_images(), kept, slices.training_patients())
        trained[name] = ledger.trained(kept, pipelines[name])
        chosen, _ = stages.select(pipelines[name], METHODS[name].grid, slices.tumour("val"))
        say(f"{name}: {chosen}")
    told = {
        "dataset": arguments.data, "preset": arguments.preset, "seed": arguments.seed,
        **{key: machine[key] for key in ("device", "threads", "commit")},
    }  # fmt: skip
    rows = measure(pipelines, slices, resolve_device(arguments.device), repeats=arguments.repeats)
    rows = [told | trained[row["method"]] | row for row in rows]
    records.replace_rows(arguments.results / f"{arguments.data}_pareto.csv", rows, COLUMNS, _KEY)
    say(f"{len(rows)} variants")


def measure(
    pipelines: dict[str, Pipeline], slices: SliceSet, device: torch.device, *, repeats: int
) -> list[dict[str, Any]]:
    """Time all variants of fitted pipelines in turn, ``repeats`` times, by setting them; return their rows.

    The accuracy is over all pixels of tumour slices of val, and also of test for the precisions.
    """
    images = slices.tumour("val").images[:_TIMED]
    cases, subjects = [], {}
    for name, original in pipelines.items():
        for variant in variants(name, original):
            # Networks in another precision are built anew, which a copy of its own keeps out of the time.
            is_own = variant.name in (*PRECISIONS, _PLAIN)
            pipeline = copy.deepcopy(original) if is_own else original
            cases.append((name, variant, pipeline))

            def run(pipeline: Pipeline = pipeline, variant: Variant = variant) -> None:
                _set(pipeline, variant)
                plain_maps(pipeline, images) if variant.name == _PLAIN else pipeline.decision_function(images)

            subjects[f"{name}: {variant.name}"] = run
    timings = interleave(subjects, device, repeats=repeats, patience=_PATIENCE)
    rows = []
    for name, variant, pipeline in cases:
        _set(pipeline, variant)
        seconds = timings[f"{name}: {variant.name}"].seconds * _TIMED / len(images)
        told = {"method": name, "is_default": variant.is_default, "seconds_per_32": seconds}
        for split in ("val", "test") if variant.name in PRECISIONS else ("val",):
            rows.append(
                told | {"variant": variant.name, "split": split} | _row(pipeline, slices.tumour(split))
            )
        uncached = stages.seconds_per_32_uncached(pipeline, images) if variant.is_default else None
        if uncached is not None:
            changed = {"variant": "uncached", "key_value_cache": False, "is_default": False}
            rows.append(rows[-1] | changed | {"seconds_per_32": uncached})
    return rows


def variants(name: str, pipeline: Pipeline) -> Iterator[Variant]:
    """Return the grid of a method, its default in both precisions, and of MIM-OOD the plain reading.

    The plain reading, at R = 4 and T = 8 in float32, gives the very same maps in all its time.
    """
    last, known = pipeline.steps[-1][0], pipeline.get_params()
    axes = {key for stage in GRIDS[name] for key in stage}
    default = {f"{last}__{key}": known[f"{last}__{key}"] for key in axes}
    seen = []
    for candidate in [candidate for stage in GRIDS[name] for candidate in ParameterGrid(stage)]:
        parameters = default | {f"{last}__{key}": value for key, value in candidate.items()}
        if parameters not in seen:
            seen.append(parameters)
            text = ", ".join(f"{key} {candidate[key]}" for key in sorted(candidate))
            yield Variant(text, parameters, parameters == default)
    if default not in seen:
        yield Variant("default", default, True)
    steps = [key for key in known if key.endswith("__precision")]
    for precision in PRECISIONS:
        yield Variant(precision, default | dict.fromkeys(steps, precision))
    if name == "mimood":
        plain = {f"{last}__n_restorations": 4, f"{last}__n_steps": 8}
        yield Variant(_PLAIN, plain | dict.fromkeys(steps, "float32"))


def _set(pipeline: Pipeline, variant: Variant) -> Pipeline:
    """Set a variant; its precision is the trained networks' own unless it has one."""
    own = {key: "auto" for key in pipeline.get_params() if key.endswith("__precision")}
    return pipeline.set_params(**own | variant.parameters)


def _row(pipeline: Pipeline, tumour: SliceSet) -> dict[str, Any]:
    maps, last = pipeline.decision_function(tumour.images), pipeline[-1]
    parameters = last.get_params()
    precision = resolve_precision(last.training.precision, resolve_device(last.device))
    return {
        **{key: parameters.get(key) for key in ("n_restorations", "n_steps", "key_value_cache")},
        "precision": str(precision).removeprefix("torch."),
        "ap": metrics.average_precision(tumour.lesions, maps),
        "best_dice": metrics.best_dice(tumour.lesions, maps),
    }
