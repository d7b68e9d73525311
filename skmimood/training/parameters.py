"""How a network is trained, as one nested parameter of every estimator that trains one."""

from __future__ import annotations

from typing import Annotated

from skmimood.runtime.device import PRECISIONS
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.rules import (
    BOOLEAN,
    COUNT,
    COUNT_OR_ZERO,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Rule,
    is_count,
    one_of,
)

_PATIENCE: Rule = (lambda n: n is None or is_count(n), "a positive integer or None")


class Training(ParameterGroup):
    """How a network is trained.

    Every estimator that trains a network takes it as ``training``; None stands for what its class says there.
    ``estimator.set_params(training__max_iter=100)`` changes one value and keeps the others of the class;
    ``training=Training(max_iter=100)`` sets them all, to the defaults below where nothing is said. Unless stated
    otherwise, a change needs a refit.

    Parameters
    ----------
    max_iter : int, default=600
        Training steps (MIM-OOD: 300,000 for the tokenizer, 200,000 for the transformers).
    batch_size : int, default=16
        Slices a step (paper silent). In inference it bounds memory, and changes no result but for rounding.
    learning_rate : float, default=1e-3
        Peak rate of AdamW with a cosine schedule (paper: 5e-5).
    weight_decay : float, default=1e-5
        Of AdamW (paper: 1e-5).
    warmup_iter : int, default=100
        Steps of linear warm-up (paper: none mentioned).
    gradient_clip : float, default=1.0
        Largest norm of the gradient.
    validation_fraction : float in [0, 1), default=0.1
        Share of the healthy slices, taken from the end, that chooses the best weights.
    n_iter_no_change : int or None, default=None
        Stop after this many steps without a better validation loss; None never stops early.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of matrix products; ``"auto"`` takes bfloat16 where the hardware has units for it. Another one for inference
        needs no refit; ``"auto"`` there is that of the training, ``precision_``.
    checkpoint_dir : str or None, default=None
        Folder for checkpoints of an unfinished training. No refit needed.
    resume : bool, default=False
        Continue from the checkpoint of an equal training by the same code, if there is one. No refit needed.
    """

    max_iter: Annotated[int, COUNT] = 600
    batch_size: Annotated[int, COUNT] = 16
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    weight_decay: Annotated[float, NOT_NEGATIVE] = 1e-5
    warmup_iter: Annotated[int, COUNT_OR_ZERO] = 100
    gradient_clip: Annotated[float, POSITIVE] = 1.0
    validation_fraction: Annotated[float, SHARE] = 0.1
    n_iter_no_change: Annotated[int | None, _PATIENCE] = None
    precision: Annotated[str, one_of(PRECISIONS)] = "auto"
    checkpoint_dir: str | None = None
    resume: Annotated[bool, BOOLEAN] = False
