"""The one training loop of all networks: AdamW, cosine schedule, early stopping, checkpoints."""

from __future__ import annotations

import contextlib
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
from safetensors.torch import load_file, save
from torch import Tensor, nn

from skmimood.exceptions import InputError, TrainingDivergedError, warn
from skmimood.networks.weights import network_state
from skmimood.runtime import distributed
from skmimood.runtime.device import autocast, out_of_memory_advice, resolve_device, resolve_precision
from skmimood.runtime.progress import stage, tell
from skmimood.runtime.streams import Streams
from skmimood.training.parameters import Training

Loss = Callable[[nn.Module, np.ndarray, Streams, bool], Tensor]
"""``loss(network, indices, streams, training) -> scalar`` over the samples at ``indices``."""

_SECONDS_BETWEEN_CHECKPOINTS = 300.0
_STEPS_BETWEEN_CHECKS = 16  # on a GPU, which idles while its losses are read
_VALIDATION_STEP = 2**40  # streams of the validation draws, the same at every validation


@dataclass(frozen=True)
class Runtime:
    """Where and how visibly the training runs; of what is learnt only the rounding depends on it.

    ``checkpoint`` is a file named after everything that does change it, the digest of the code last, so that a
    training with other data, parameters or code never resumes from it.
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
    """Take of ``tokens`` (n, n_copies, h, w) a random copy of each slice, or in validation the slice itself, int64."""
    copies = streams.numpy.integers(0, tokens.shape[1], len(indices)) if training else 0
    return tokens[indices, copies].astype(np.int64, copy=False)


def train(
    network: nn.Module, loss: Loss, n_samples: int, recipe: Training, runtime: Runtime, *, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Train ``network`` on samples ``0 .. n_samples - 1``; return its ``"state"`` and ``"history"``.

    The state is the weights with the lowest validation loss; the history has ``loss`` (n_iter,), and
    ``validation_loss`` and ``validation_step`` (n_validations,).
    """
    return _Trainer(network, loss, n_samples, recipe, runtime, seed).run()


class _Trainer:
    """One training; in several processes each runs one, in step, and only the first writes."""

    def __init__(
        self, network: nn.Module, loss: Loss, n: int, recipe: Training, runtime: Runtime, seed: int
    ) -> None:
        self.device = resolve_device(runtime.device)
        self.dtype = resolve_precision(recipe.precision, self.device)
        self.network = network.to(self.device)
        self.shared = distributed.divided(self.network)  # what the loss calls in training
        self.loss, self.recipe, self.runtime, self.seed = loss, recipe, runtime, seed
        self.training, self.validation = split_validation(n, recipe.validation_fraction)
        self.validate_every = max(1, recipe.max_iter // 20)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.progress = _Progress()
        self.unread: list[Tensor] = []  # losses of the steps since they were last looked at
        self.steps_between_checks = 1 if self.device.type == "cpu" else _STEPS_BETWEEN_CHECKS
        self.best = self.last_good = self._snapshot()
        self.last_save = time.monotonic()
        self.is_warned = False  # that no checkpoint can be written
        if recipe.batch_size < distributed.n_processes():
            raise InputError(
                f"training__batch_size={recipe.batch_size} cannot be divided among {distributed.n_processes()} "
                "processes. Raise it, or start fewer."
            )

    def run(self) -> dict[str, dict[str, np.ndarray]]:
        self._resume()
        title, n_steps, done = self.runtime.title, self.recipe.max_iter, self.progress.step
        with (
            stage(title, n_steps, "steps", shown=self.runtime.verbose, done=done) as shown,
            out_of_memory_advice(self.recipe.batch_size),
        ):
            while self.progress.step < n_steps and not self._is_stale():
                self._advance()
                loss = np.mean(self.progress.losses[-50:] or [math.nan])
                shown.move_to(self.progress.step, f"loss {loss:.4f}")
        self.network.load_state_dict(self.best["network"])
        if self.runtime.checkpoint is not None and distributed.is_first():
            with contextlib.suppress(OSError):  # a warning has told that the folder cannot be written
                self.runtime.checkpoint.unlink(missing_ok=True)
        history: dict[str, np.ndarray] = {
            "loss": np.array(self.progress.losses, np.float32),
            "validation_loss": np.array(self.progress.validation_losses, np.float32),
            "validation_step": np.array(self.progress.validation_steps, np.int64),
        }
        return {"state": network_state(self.network), "history": history}

    def _advance(self) -> None:
        """Make one step, and validate where one is due; a loss that is not finite goes back instead."""
        self.unread.append(self._step())
        self.progress.step += 1
        is_last = self.progress.step == self.recipe.max_iter
        is_due = is_last or self.progress.step % self.validate_every == 0
        if not is_due and len(self.unread) < self.steps_between_checks:
            return
        losses, self.unread = torch.stack(self.unread).tolist(), []
        if not all(map(math.isfinite, losses)):
            self._recover()
            return
        self.progress.losses += losses
        if is_due:
            self._validate()
        elif time.monotonic() - self.last_save > _SECONDS_BETWEEN_CHECKPOINTS:
            self._save_checkpoint()

    def _step(self) -> Tensor:
        """Make one update; return its loss, NaN if the training must go back to before the update."""
        recipe, streams = self.recipe, Streams.at(self.seed, self.progress.step, self.device)
        indices = streams.numpy.choice(
            self.training, recipe.batch_size, replace=len(self.training) < recipe.batch_size
        )
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * self._schedule() * self.progress.learning_rate_factor
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.dtype):
            loss = self.loss(self.shared, indices, streams, True)
        loss.backward()
        distributed.sum_gradients(self.network)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), recipe.gradient_clip)
        self.optimizer.step()
        return torch.where(norm.isfinite(), loss.detach(), math.nan)

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
        """Score the held-out share with the same draws every time; keep the best weights; write a checkpoint."""
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
        starts = range(0, len(self.validation), self.recipe.batch_size)
        for start in starts[distributed.rank() :: distributed.n_processes()]:
            indices = self.validation[start : start + self.recipe.batch_size]
            streams = Streams.at(self.seed, _VALIDATION_STEP + start, self.device)
            with autocast(self.device, self.dtype):
                total += self.loss(self.network, indices, streams, False).item() * len(indices)
        return distributed.total(total, self.device) / len(self.validation)

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

    def _save_checkpoint(self) -> None:
        """Write everything that the next step depends on, at once; a reader never sees half of it.

        What cannot be written is warned about once: it must not cost the training.
        """
        path, self.last_save = self.runtime.checkpoint, time.monotonic()
        if path is None or not distributed.is_first():
            return
        tensors = {f"network/{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self.best["network"].items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{slot}": value for slot, value in slots.items()}
        metadata = {"progress": json.dumps(vars(self.progress))}
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(save({k: tensor.contiguous() for k, tensor in tensors.items()}, metadata))
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not self.is_warned:
                warn(
                    f"No checkpoint can be written to {path.parent.name!r} "
                    f"({getattr(error, 'strerror', None) or error}). The training of {self.runtime.title} goes on, "
                    "but cannot be resumed. Make the folder writable, or choose another checkpoint_dir."
                )
            self.is_warned = True

    def _resume(self) -> None:
        """Go on from the checkpoint of the first process, if there is one and it is wanted."""
        path = self.runtime.checkpoint
        if self.runtime.resume and path is not None:
            stored = distributed.on_first(lambda: _read_checkpoint(path) if path.exists() else None)
            if stored is not None:
                self._restore(*stored)
                tell(
                    f"{self.runtime.title} goes on after step {self.progress.step} of {self.recipe.max_iter}.",
                    shown=self.runtime.verbose,
                )
            elif distributed.is_first():
                self._warn_of_other_code(path)

    def _warn_of_other_code(self, path: Path) -> None:
        """Tell of a checkpoint of the same training by other code, whose name differs in the last part alone."""
        others = sorted(path.parent.glob(f"{path.stem.rpartition('-')[0]}-*{path.suffix}"))
        if others:
            warn(
                f"{others[0].name} was written by another version of skmimood, so {self.runtime.title} is trained "
                "from the start. Delete it, or resume with the version that wrote it."
            )

    def _restore(self, progress: dict[str, Any], tensors: dict[str, Tensor]) -> None:
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


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            progress = json.loads(file.metadata()["progress"])
        return progress, load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path.name} is not a readable checkpoint: {error}. Delete it to start anew."
        ) from error
