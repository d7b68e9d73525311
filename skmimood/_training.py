"""The one training loop of all networks: AdamW, cosine schedule, early stopping, checkpoints."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from skmimood._device import autocast, out_of_memory_advice, resolve_device, resolve_precision
from skmimood._random import Streams
from skmimood.exceptions import InputError, TrainingDivergedError
from skmimood.networks.weights import network_state

Loss = Callable[[nn.Module, np.ndarray, Streams, bool], Tensor]
"""``loss(network, indices, streams, training) -> scalar`` over the samples at ``indices``."""

_SECONDS_BETWEEN_CHECKPOINTS = 300.0
_VALIDATION_STEP = 2**40  # streams of the validation draws, the same at every validation


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the paper's values are those of preset ``"paper"`` (MIM-OOD section 4)."""

    max_iter: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_iter: int
    gradient_clip: float
    validation_fraction: float
    n_iter_no_change: int | None
    precision: str


@dataclass(frozen=True)
class Runtime:
    """Where and how visibly the training runs; of what is learnt only the rounding depends on it.

    ``checkpoint`` is a file named after everything that does change it, so that a training
    with other data or parameters never resumes from it.
    """

    title: str
    device: str = "auto"
    verbose: bool = False
    checkpoint: Path | None = None
    resume: bool = False


@dataclass
class _Progress:
    """Everything besides weights that a checkpoint must bring back."""

    step: int = 0
    learning_rate_factor: float = 1.0
    best_loss: float = math.inf
    n_without_gain: int = 0
    losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    validation_steps: list[int] = field(default_factory=list)


def split_validation(n_samples: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Split sample indices into (training, validation): the last share validates.

    A contiguous block keeps neighbouring slices of one scan on the same side of the cut.
    """
    n_validation = min(round(fraction * n_samples), n_samples - 1)
    return np.arange(n_samples - n_validation), np.arange(n_samples - n_validation, n_samples)


def pick_copies(tokens: np.ndarray, indices: np.ndarray, streams: Streams, training: bool) -> np.ndarray:
    """Take of ``tokens`` (n, n_copies, h, w) a random copy of each slice, or in validation the slice itself."""
    copies = streams.numpy.integers(0, tokens.shape[1], len(indices)) if training else 0
    return tokens[indices, copies]


def train(
    network: nn.Module, loss: Loss, n_samples: int, recipe: Recipe, runtime: Runtime, *, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Train ``network`` on samples ``0 .. n_samples - 1``.

    Returns
    -------
    dict
        ``"state"``: the weights with the lowest validation loss. ``"history"``: ``loss`` (n_iter,),
        ``validation_loss`` and ``validation_step`` (n_validations,).
    """
    return _Trainer(network, loss, n_samples, recipe, runtime, seed).run()


class _Trainer:
    def __init__(
        self, network: nn.Module, loss: Loss, n_samples: int, recipe: Recipe, runtime: Runtime, seed: int
    ) -> None:
        self.device = resolve_device(runtime.device)
        self.dtype = resolve_precision(recipe.precision, self.device)
        self.network = network.to(self.device)
        self.loss, self.recipe, self.runtime, self.seed = loss, recipe, runtime, seed
        self.training, self.validation = split_validation(n_samples, recipe.validation_fraction)
        self.validate_every = max(1, recipe.max_iter // 20)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.progress = _Progress()
        self.best = self.last_good = self._snapshot()
        self.last_save = time.monotonic()

    def run(self) -> dict[str, dict[str, np.ndarray]]:
        if self.runtime.resume and self.runtime.checkpoint is not None and self.runtime.checkpoint.exists():
            self._load_checkpoint(self.runtime.checkpoint)
        with tqdm(
            total=self.recipe.max_iter, initial=self.progress.step, desc=self.runtime.title, unit="step",
            disable=not self.runtime.verbose, mininterval=1.0,
        ) as bar, out_of_memory_advice(self.recipe.batch_size):  # fmt: skip
            while self.progress.step < self.recipe.max_iter and not self._is_stale():
                self._advance()
                bar.update(self.progress.step - bar.n)
                bar.set_postfix(
                    loss=f"{np.mean(self.progress.losses[-50:] or [math.nan]):.4f}", refresh=False
                )
        self.network.load_state_dict(self.best["network"])
        if self.runtime.checkpoint is not None:
            self.runtime.checkpoint.unlink(missing_ok=True)
        return {"state": network_state(self.network), "history": self._history()}

    def _advance(self) -> None:
        """Make one step, and validate where one is due; a loss that is not finite goes back instead."""
        value = self._step()
        if not math.isfinite(value):
            self._recover()
            return
        self.progress.losses.append(value)
        self.progress.step += 1
        if self.progress.step % self.validate_every == 0 or self.progress.step == self.recipe.max_iter:
            self._validate()
        elif time.monotonic() - self.last_save > _SECONDS_BETWEEN_CHECKPOINTS:
            self._save_checkpoint()

    def _step(self) -> float:
        """Make one update; return its loss, not finite if the update must not be kept."""
        recipe, streams = self.recipe, Streams.at(self.seed, self.progress.step, self.device)
        indices = streams.numpy.choice(
            self.training, recipe.batch_size, replace=len(self.training) < recipe.batch_size
        )
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * self._schedule() * self.progress.learning_rate_factor
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.dtype):
            loss = self.loss(self.network, indices, streams, True)
        value = loss.item()
        if math.isfinite(value):
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), recipe.gradient_clip)
            if not torch.isfinite(norm):
                return math.nan
            self.optimizer.step()
        return value

    def _schedule(self) -> float:
        """Linear warm-up, then half a cosine down to zero."""
        step, warmup = self.progress.step, self.recipe.warmup_iter
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.recipe.max_iter - warmup)))

    def _is_stale(self) -> bool:
        patience = self.recipe.n_iter_no_change
        return patience is not None and self.progress.n_without_gain * self.validate_every >= patience

    def _validate(self) -> None:
        """Score the held-out share with the same draws as ever; keep the best weights; write a checkpoint."""
        progress = self.progress
        # Without a held-out share the last weights are the best.
        loss = self._validation_loss() if len(self.validation) else -float(progress.step)
        if not math.isfinite(loss):
            self._recover()
            return
        progress.n_without_gain += 1
        if loss < progress.best_loss:
            progress.best_loss, progress.n_without_gain, self.best = loss, 0, self._snapshot()
        if len(self.validation):
            progress.validation_losses.append(loss)
            progress.validation_steps.append(progress.step)
        self.last_good = self._snapshot()
        self._save_checkpoint()

    @torch.no_grad()
    def _validation_loss(self) -> float:
        total = 0.0
        for start in range(0, len(self.validation), self.recipe.batch_size):
            indices = self.validation[start : start + self.recipe.batch_size]
            streams = Streams.at(self.seed, _VALIDATION_STEP + start, self.device)
            with autocast(self.device, self.dtype):
                total += self.loss(self.network, indices, streams, False).item() * len(indices)
        return total / len(self.validation)

    def _snapshot(self) -> dict[str, Any]:
        return {
            "network": {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()},
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "progress": copy.deepcopy(self.progress),
        }

    def _recover(self) -> None:
        """Go back to the last good state with half the learning rate, once."""
        if self.progress.learning_rate_factor < 1:
            raise TrainingDivergedError(
                f"{self.runtime.title}: the loss became NaN or infinite at step {self.progress.step}, again after "
                f"the learning rate had been halved to {self.recipe.learning_rate / 2:g}. Check the images for "
                "extreme values, or lower learning_rate."
            )
        # The tensors of a snapshot are shared with nothing that the optimiser writes to.
        self.network.load_state_dict(self.last_good["network"])
        self.optimizer.load_state_dict(copy.deepcopy(self.last_good["optimizer"]))
        self.progress = replace(copy.deepcopy(self.last_good["progress"]), learning_rate_factor=0.5)

    def _history(self) -> dict[str, np.ndarray]:
        return {
            "loss": np.array(self.progress.losses, np.float32),
            "validation_loss": np.array(self.progress.validation_losses, np.float32),
            "validation_step": np.array(self.progress.validation_steps, np.int64),
        }

    def _save_checkpoint(self) -> None:
        """Write everything that the next step depends on, at once; a reader never sees half of it."""
        path, self.last_save = self.runtime.checkpoint, time.monotonic()
        if path is None:
            return
        tensors = {f"network/{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self.best["network"].items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{slot}": value for slot, value in slots.items()}
        metadata = {"progress": json.dumps(vars(self.progress))}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
        os.replace(temporary, path)

    def _load_checkpoint(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                progress = json.loads(file.metadata()["progress"])
            tensors = load_file(path)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path.name} is not a readable checkpoint: {error}. Delete it to start anew."
            ) from error
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor.to(self.device)
        self.network.load_state_dict(parts["network"])
        state = self.optimizer.state_dict()
        state["state"] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, slot = name.partition("/")
            state["state"].setdefault(int(index), {})[slot] = tensor.cpu() if slot == "step" else tensor
        self.optimizer.load_state_dict(state)
        self.progress = _Progress(**progress)
        self.last_good = self._snapshot()
        self.best = {**self.last_good, "network": parts["best"]}
