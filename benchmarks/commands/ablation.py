"""What each part of the default recipe is worth: one change at a time, on the tumour slices of val."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sklearn.pipeline import Pipeline

from benchmarks import records
from benchmarks.commands.options import Log, add_data_arguments, listed, slices_of_command, told_in_a_line
from benchmarks.data.slices import SliceSet
from benchmarks.protocol import ledger, stages
from benchmarks.protocol.methods import METHODS, Settings
from benchmarks.protocol.variants import VARIANTS

COLUMNS = (
    "dataset", "preset", "seed", "variant", "parameters", "token_ap", "token_auroc", "ap", "best_dice", "auroc",
    "fit_seconds", "seconds_per_32", "device", "trained", "trained_code", "commit",
)  # fmt: skip
_KEY = ("dataset", "preset", "seed", "variant", "device")
TRAINED = (
    "tokenizer__", "detector__corruption", "detector__network", "inpainter__mask_generator",
    "inpainter__skip_background",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser, default="lgg")
    parser.add_argument("--variants", default="all", help="names separated by semicolons (default: all)")
    parser.add_argument("--seed", type=int, default=0)


@told_in_a_line
def run(arguments: argparse.Namespace) -> None:
    names = named_variants(arguments.variants)
    say = Log()
    slices = slices_of_command(arguments)
    settings = Settings(arguments.preset, arguments.seed, arguments.device, arguments.cache)
    kept = arguments.cache / ledger.NAME
    grid = METHODS["mimood"].grid
    recipe = METHODS["mimood"].build(settings)
    stages.fit(recipe, slices.training_images(), kept, slices.training_patients())
    chosen, _ = stages.select(recipe, grid, slices.tumour("val"))
    say(f"recipe: {chosen}")
    machine = records.environment(arguments.device)
    for name in names:
        changes = relative(VARIANTS[name], chosen)
        if changes and all(recipe.get_params()[key] == value for key, value in changes.items()):
            continue  # val chose it
        pipeline = METHODS["mimood"].build(settings).set_params(**chosen).set_params(**changes)
        trains = any(key.startswith(TRAINED) for key in changes)
        figures = measure(pipeline, slices, kept, grid if trains else None)
        row = {
            "dataset": arguments.data, "preset": arguments.preset, "seed": arguments.seed, "variant": name,
            "parameters": json.dumps(changes), **figures, "device": machine["device"],
            **ledger.trained(kept, pipeline), "commit": machine["commit"],
        }  # fmt: skip
        records.replace_rows(arguments.results / f"{arguments.data}_ablation.csv", [row], COLUMNS, _KEY)
        say(f"{name}: AP {figures['ap']:.3f}, best Dice {figures['best_dice']:.3f}")


def named_variants(names: str) -> list[str]:
    """Return the names in a list separated by semicolons; all for ``"all"``."""
    return listed(names, VARIANTS, "variant", ";")


def measure(
    pipeline: Pipeline, slices: SliceSet, kept: Path | None = None, grid: Any = None
) -> dict[str, float]:
    """Fit, choose from ``grid`` on val, and compute the figures over all pixels and tokens of its tumour slices."""
    seconds = stages.fit(pipeline, slices.training_images(), kept, slices.training_patients())
    val = slices.tumour("val")
    stages.select(pipeline, grid or {}, val)
    pixels = stages.pixel_rows(pipeline.decision_function(val.images), val)[0]
    tokens = stages.token_rows(pipeline, val)[0]
    return {
        "token_ap": tokens["ap"], "token_auroc": tokens["auroc"], "ap": pixels["ap"],
        "best_dice": pixels["best_dice"], "auroc": pixels["auroc"], "fit_seconds": seconds,
        "seconds_per_32": stages.seconds_per_32(pipeline, val.images),
    }  # fmt: skip


def relative(changes: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """Turn the factor of lambda that a variant names into a value."""
    name = "detector__threshold"
    return changes | {name: changes[name] * chosen[name]} if name in changes else changes
