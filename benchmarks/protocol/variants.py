"""Changes of the default recipe, one at a time."""

from __future__ import annotations

from typing import Any

# Changes of the recipe. Those that train a network anew give it no more time, and what is chosen on val is chosen again
# for them, as lambda means something else for another detector.
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "residual not weighted": {"inpainter__maps__residual_weight": "none"},
    "residual weighted by changed tokens": {"inpainter__maps__residual_weight": "changed"},
    "absolute residual": {"inpainter__maps__residual": "absolute"},
    "positive residual": {"inpainter__maps__residual": "positive"},
    "no erosion": {"inpainter__maps__erosion": 0},
    "mean filter of 3 pixels": {"inpainter__maps__mean_filter": 3},
    "the paper's filters": {"inpainter__maps__min_filter": 3, "inpainter__maps__mean_filter": 7},
    "nearer restorations count more": {"inpainter__maps__combination": "similarity"},
    "least of the residuals": {"inpainter__maps__combination": "min"},
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
    "transformer as in-painter": {
        "inpainter__network": "transformer", "inpainter__depth": 4, "inpainter__width": 128,
        "inpainter__training__max_iter": 600, "inpainter__training__learning_rate": 1e-3,
    },
    "in-painter on scattered masks": {"inpainter__mask_generator": "maskgit_cosine"},
    "not standardised": {"tokenizer__standardize": False},
    "tokens of 8 pixels": {"tokenizer__channel_multipliers": (1, 2, 2)},
    "codes of 8 dimensions": {"tokenizer__code_dim": 8},
    "512 codes": {"tokenizer__n_codes": 512},
    "cosine codes": {"tokenizer__quantizer": "cosine"},
    "FSQ codes": {"tokenizer__quantizer": "fsq"},
}  # fmt: skip

# Parameters that train a network anew, by how their names begin.
TRAINED = (
    "tokenizer__", "detector__corruption", "detector__network", "inpainter__network",
    "inpainter__mask_generator", "inpainter__skip_background",
)  # fmt: skip


def relative(changes: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """Turn the factor of lambda that a variant names into a value."""
    name = "detector__threshold"
    return changes | {name: changes[name] * chosen[name]} if name in changes else changes
