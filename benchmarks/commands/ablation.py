"""What each part of the default recipe is worth: one change at a time, on the tumour slices of val."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sklearn.pipeline import Pipeline

from benchmarks import records
from benchmarks.commands.options import add_data_arguments, listed, say, slices_of_command
from benchmarks.data.slices import SliceSet
from benchmarks.protocol import ledger, scores, stages
from benchmarks.protocol.methods import METHODS, Settings
from benchmarks.protocol.variants import TRAINED, VARIANTS, relative

_KEY = ("dataset", "preset", "seed", "variant", "device")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser, default="lgg")
    parser.add_argument("--variants", default="all", help="names separated by semicolons (default: all)")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> None:
    names = listed(arguments.variants, VARIANTS, "variant", ";")
    slices = slices_of_command(arguments)
    settings = Settings(arguments.preset, arguments.seed, arguments.device, arguments.cache)
    kept, method = arguments.cache / ledger.NAME, METHODS["mimood"]
    recipe = method.build(settings)
    _, chosen = stages.learn(recipe, method.grid, slices, kept)
    say(f"recipe: {chosen}")
    machine = records.environment(arguments.device)
    for name in names:
        changes = relative(VARIANTS[name], chosen)
        if changes and all(recipe.get_params()[key] == value for key, value in changes.items()):
            continue  # val chose it
        pipeline = method.build(settings).set_params(**chosen).set_params(**changes)
        trains = any(key.startswith(TRAINED) for key in changes)
        figures = measure(pipeline, slices, kept, method.grid if trains else {})
        row = {
            "dataset": arguments.data, "preset": arguments.preset, "seed": arguments.seed, "variant": name,
            "parameters": json.dumps(changes), **figures, "device": machine["device"],
            **ledger.trained(kept, pipeline), "commit": machine["commit"],
        }  # fmt: skip
        records.replace_rows(arguments.results / f"{arguments.data}_ablation.csv", [row], _KEY)
        say(f"{name}: AP {figures['ap']:.3f}, best Dice {figures['best_dice']:.3f}")


def measure(pipeline: Pipeline, slices: SliceSet, kept: Path | None, grid: Any) -> dict[str, float]:
    """Fit, choose from ``grid`` on val, and compute the figures over all pixels and tokens of its tumour slices."""
    seconds, _ = stages.learn(pipeline, grid, slices, kept)
    val = slices.tumour("val")
    pixels = scores.pixel_rows(pipeline.decision_function(val.images), val)[0]
    tokens = scores.token_rows(pipeline, val)[0]
    return {
        "token_ap": tokens["ap"], "token_auroc": tokens["auroc"],
        **{name: pixels[name] for name in ("ap", "best_dice", "auroc")}, "fit_seconds": seconds,
        "seconds_per_32": stages.seconds_per_32(pipeline, val.images),
    }  # fmt: skip
