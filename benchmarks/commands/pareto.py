"""Accuracy against time of MIM-OOD and AR restoration, as R, T and the sampling vary; bfloat16 against float32."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline

from benchmarks import records
from benchmarks.commands.options import Log, add_data_arguments, slices_of_command, told_in_a_line
from benchmarks.data.slices import SliceSet
from benchmarks.protocol import ledger, stages
from benchmarks.protocol.methods import METHODS, Settings
from benchmarks.timing.plain_reading import plain_maps
from benchmarks.timing.stopwatch import Subject, interleave
from skmimood import metrics
from skmimood.runtime.device import resolve_device

COLUMNS = (
    "dataset", "preset", "seed", "method", "variant", "split", "n_restorations", "n_steps", "n_passes", "order",
    "key_value_cache", "precision", "is_default", "ap", "best_dice", "seconds_per_32", "device", "threads",
    "trained", "trained_code", "commit",
)  # fmt: skip
_KEY = ("dataset", "preset", "seed", "device", "method")
PRECISIONS = ("float32", "bfloat16")
_TIMED = 32

# What varies for each method: parameters of its last step. The first of a method is what is chosen on val for.
GRIDS: dict[str, list[dict[str, list[Any]]]] = {
    "mimood": [{"n_steps": [1, 2, 4, 8], "n_restorations": [1, 2, 4, 8]}],
    "ar": [{"n_restorations": [1, 2, 4, 8]}, {"n_restorations": [1, 4], "temperature": [0.5]}],
}


@dataclass(frozen=True)
class Variant:
    """One setting of a method.

    Attributes
    ----------
    name : str
        What tables call it.
    parameters : dict
        Of the whole pipeline.
    is_default : bool
        Whether this is the method as it comes.
    """

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    is_default: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser, default="lgg")
    parser.add_argument(
        "--methods", default=",".join(GRIDS), help="names separated by commas (default: mimood,ar)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each variant (default: 3)")


@told_in_a_line
def run(arguments: argparse.Namespace) -> None:
    say = Log()
    slices = slices_of_command(arguments)
    settings = Settings(arguments.preset, arguments.seed, arguments.device, arguments.cache)
    kept, machine = arguments.cache / ledger.NAME, records.environment(arguments.device)
    pipelines, trained = {}, {}
    for name in arguments.methods.split(","):
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
    """Time all variants of all methods in turn, and compute their accuracy.

    Parameters
    ----------
    pipelines : dict of name to fitted Pipeline
        As chosen on val.
    slices : SliceSet
    device : torch.device
    repeats : int
        Timed runs of each variant, besides a warm-up.

    Returns
    -------
    list of dict
        Over all pixels of tumour slices of val, and of test for the precisions.
    """
    cases = {name: list(variants(name, pipeline)) for name, pipeline in pipelines.items()}
    images = slices.tumour("val").images[:_TIMED]
    subjects = [
        # Networks in another precision are built anew, which a copy of its own keeps out of the time.
        _timed(
            f"{name}: {variant.name}",
            copy.deepcopy(pipelines[name]) if variant.name in PRECISIONS else pipelines[name],
            variant,
            images,
        )
        for name, listed in cases.items()
        for variant in listed
    ]
    if "mimood" in pipelines:
        plain = _published(pipelines["mimood"])
        reference = copy.deepcopy(pipelines["mimood"]).set_params(**plain.parameters)

        def read_plainly() -> None:
            plain_maps(reference, images)

        subjects.append(Subject(plain.name, read_plainly))
    timings = interleave(subjects, device, repeats=repeats, patience=60.0)
    rows = []
    for name, listed in cases.items():
        for variant in listed:
            seconds = timings[f"{name}: {variant.name}"].seconds * _TIMED / len(images)
            splits = ("val", "test") if variant.name in PRECISIONS else ("val",)
            rows += [
                _row(name, pipelines[name], variant, slices.tumour(split), split, seconds) for split in splits
            ]
        default = next(variant for variant in listed if variant.is_default)
        rows += _uncached(name, _set(pipelines[name], default), images, rows)
    if "mimood" in pipelines:
        seconds = timings[plain.name].seconds * _TIMED / len(images)
        rows.append(_row("mimood", reference, plain, slices.tumour("val"), "val", seconds))
    return rows


def variants(name: str, pipeline: Pipeline) -> Iterator[Variant]:
    """Return the grid of a method, and its default in both precisions."""
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


def _published(pipeline: Pipeline) -> Variant:
    """Return R = 4 and T = 8 in float32, of which the plain reading, in all its time, gives the very same maps."""
    last = pipeline.steps[-1][0]
    parameters = {f"{last}__n_restorations": 4, f"{last}__n_steps": 8}
    steps = [key for key in pipeline.get_params() if key.endswith("__precision")]
    return Variant("plain reading", parameters | dict.fromkeys(steps, "float32"))


def _timed(name: str, pipeline: Pipeline, variant: Variant, images: np.ndarray) -> Subject:
    def run() -> None:
        _set(pipeline, variant).decision_function(images)

    return Subject(name, run)


def _set(pipeline: Pipeline, variant: Variant) -> Pipeline:
    """Set a variant; its precision is the trained networks' own unless it has one."""
    own = {key: "auto" for key in pipeline.get_params() if key.endswith("__precision")}
    return pipeline.set_params(**own | variant.parameters)


def _row(
    name: str, pipeline: Pipeline, variant: Variant, tumour: SliceSet, split: str, seconds: float
) -> dict[str, Any]:
    maps = _set(pipeline, variant).decision_function(tumour.images)
    last = pipeline.steps[-1][1]
    parameters = last.get_params()
    names = ("n_restorations", "n_steps", "key_value_cache")
    return {
        "method": name, "variant": variant.name, "split": split, **{key: parameters.get(key) for key in names},
        "precision": str(last._inference_dtype()).removeprefix("torch."), "is_default": variant.is_default,
        "ap": metrics.average_precision(tumour.lesions, maps),
        "best_dice": metrics.best_dice(tumour.lesions, maps), "seconds_per_32": seconds,
    }  # fmt: skip


def _uncached(
    name: str, pipeline: Pipeline, images: np.ndarray, rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the default row of AR, as the pipeline is set, with the time that it takes without a key-value cache."""
    seconds = stages.seconds_per_32_uncached(pipeline, images)
    default = [row for row in rows if row["method"] == name and row["is_default"]]
    if seconds is None:
        return []
    changed = {
        "variant": "uncached",
        "key_value_cache": False,
        "is_default": False,
        "seconds_per_32": seconds,
    }
    return [row | changed for row in default]
