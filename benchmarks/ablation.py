"""What each part of the default recipe is worth: one change at a time, on the tumour slices of val."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sklearn.pipeline import Pipeline

from benchmarks import ledger, protocol, records, tables
from benchmarks.accuracy import Log, add_data_arguments, slices_of_command, told_in_a_line
from benchmarks.choices import listed
from benchmarks.methods import METHODS, Settings
from benchmarks.slices import SliceSet

COLUMNS = (
    "dataset", "preset", "seed", "variant", "parameters", "token_ap", "token_auroc", "ap", "best_dice", "auroc",
    "fit_seconds", "seconds_per_32", "device", "trained", "trained_code", "commit",
)  # fmt: skip
_KEY = ("dataset", "preset", "seed", "variant", "device")
TRAINED = (
    "tokenizer__", "detector__corruption", "detector__network", "inpainter__mask_generator",
    "inpainter__skip_background",
)  # fmt: skip

# Changes of the recipe. Those that train a network anew train it as long, and what is chosen on val is chosen again for
# them, as lambda means something else for another detector.
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "residual not weighted": {"inpainter__residual_weight": "none"},
    "residual weighted by changed tokens": {"inpainter__residual_weight": "changed"},
    "absolute residual": {"inpainter__residual": "absolute"},
    "positive residual": {"inpainter__residual": "positive"},
    "against the decoded slice": {"inpainter__residual_reference": "reconstruction"},
    "no erosion": {"inpainter__erosion": 0},
    "mean filter of 3 pixels": {"inpainter__mean_filter": 3},
    "the paper's filters": {"inpainter__min_filter": 3, "inpainter__mean_filter": 7},
    "nearer restorations count more": {"inpainter__combination": "similarity"},
    "least of the residuals": {"inpainter__combination": "min"},
    "R = 1": {"inpainter__n_restorations": 1},
    "R = 4": {"inpainter__n_restorations": 4},
    "R = 4, T = 2": {"inpainter__n_restorations": 4, "inpainter__n_steps": 2},
    "T = 2": {"inpainter__n_steps": 2},
    "T = 4": {"inpainter__n_steps": 4},
    "T = 8": {"inpainter__n_steps": 8},
    "temperature 1": {"inpainter__temperature": 1.0},
    "temperature 0.25": {"inpainter__temperature": 0.25},
    "lambda x 1/4": {"detector__threshold": 0.25},
    "lambda x 5": {"detector__threshold": 5.0},
    "transformer as detector": {
        "detector__network": "transformer", "detector__depth": 4, "detector__width": 128,
    },
    "transformer as detector, without the background": {
        "detector__network": "transformer", "detector__depth": 4, "detector__width": 128,
        "detector__skip_background": True,
    },
    "detector on random tokens": {"detector__corruption": "random"},
    "tokens off the head too": {"inpainter__skip_background": False},
    "in-painter on scattered masks": {"inpainter__mask_generator": "maskgit_cosine"},
    "not standardised": {"tokenizer__standardize": False},
    "tokens of 8 pixels": {"tokenizer__channel_multipliers": (1, 2, 2)},
    "codes of 8 dimensions": {"tokenizer__code_dim": 8},
    "512 codes": {"tokenizer__n_codes": 512},
    "cosine codes": {"tokenizer__quantizer": "cosine"},
    "FSQ codes": {"tokenizer__quantizer": "fsq"},
}  # fmt: skip


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
    protocol.fit(recipe, slices.training_images(), kept, slices.training_patients())
    chosen, _ = protocol.select(recipe, grid, slices.tumour("val"))
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
        tables.replace_rows(arguments.results / f"{arguments.data}_ablation.csv", [row], COLUMNS, _KEY)
        say(f"{name}: AP {figures['ap']:.3f}, best Dice {figures['best_dice']:.3f}")


def named_variants(names: str) -> list[str]:
    """Return the names in a list separated by semicolons; all for ``"all"``."""
    return listed(names, VARIANTS, "variant", ";")


def measure(
    pipeline: Pipeline, slices: SliceSet, kept: Path | None = None, grid: Any = None
) -> dict[str, float]:
    """Fit, choose from ``grid`` on val, and compute the figures over all pixels and tokens of its tumour slices."""
    seconds = protocol.fit(pipeline, slices.training_images(), kept, slices.training_patients())
    val = slices.tumour("val")
    protocol.select(pipeline, grid or {}, val)
    pixels = protocol.pixel_rows(pipeline.decision_function(val.images), val)[0]
    tokens = protocol.token_rows(pipeline, val)[0]
    return {
        "token_ap": tokens["ap"], "token_auroc": tokens["auroc"], "ap": pixels["ap"],
        "best_dice": pixels["best_dice"], "auroc": pixels["auroc"], "fit_seconds": seconds,
        "seconds_per_32": protocol.seconds_per_32(pipeline, val.images),
    }  # fmt: skip


def relative(changes: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """Turn the factor of lambda that a variant names into a value."""
    name = "detector__threshold"
    return changes | {name: changes[name] * chosen[name]} if name in changes else changes
