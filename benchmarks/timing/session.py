"""What the groups of ``speed`` share: how much is measured, networks, the device and its rates, and their records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from benchmarks import records
from benchmarks.timing import networks
from benchmarks.timing.floor import Machine, measure_machine
from benchmarks.timing.stopwatch import Timing, interleave, memory_kind
from skmimood.pipeline import PRESET_IMAGE_SIZE
from skmimood.runtime.device import resolve_precision

Record = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    images: int = 32  # slices of the restorations
    grid_images: int = 8  # slices of what takes many restorations: grid and growth
    repeats: int = 5  # runs that count, besides a warm-up
    patience: float = 60.0  # seconds beyond which something runs but once
    positions: int = 8  # of the uncached AR restoration that are measured
    train_steps: int = 5  # of a training, besides a warm-up
    volume: tuple[int, int, int] = (240, 240, 155)


class Session:
    """Networks and rates of one preset, device, share of masked tokens and side of slices, made when first used."""

    def __init__(
        self, preset: str, device: torch.device, plan: Plan, *, share: float = networks.MASKED_SHARE,
        size: int | None = None,
    ) -> None:  # fmt: skip
        self.preset, self.device, self.plan, self.share = preset, device, plan, share
        self.size = size or PRESET_IMAGE_SIZE[preset]
        self.dtype = resolve_precision("auto", device)  # what the transformers compute in

    @cached_property
    def networks(self) -> networks.Networks:
        """The networks."""
        return networks.build(self.preset, str(self.device), size=self.size, share=self.share)

    @cached_property
    def machine(self) -> Machine:
        """The rates of the device in its precision."""
        return measure_machine(self.device, self.dtype)

    def images(self, n: int) -> np.ndarray:
        """Return n slices."""
        return networks.phantoms(n, self.size)

    def interleave(
        self, subjects: Mapping[str, Callable[[], Any]], repeats: int | None = None
    ) -> dict[str, Timing]:
        """Time subjects as the plan says."""
        repeats = repeats or self.plan.repeats
        return interleave(subjects, self.device, repeats=repeats, patience=self.plan.patience)

    @cached_property
    def common(self) -> Record:
        """What all records have in common."""
        told = records.environment(str(self.device))
        return {
            "preset": self.preset, "image_size": self.size,
            "precision": str(self.dtype).removeprefix("torch."), "memory_kind": memory_kind(self.device),
            **{key: told[key] for key in ("device", "threads", "torch", "commit")},
        }  # fmt: skip


def record(
    name: str, timing: Timing, per: str, to: str | None = None, timings: dict[str, Timing] | None = None,
    **more: Any,
) -> Record:  # fmt: skip
    """Return a record of a timing, with its ratio to another one of the same run."""
    return {
        "name": name, "seconds": timing.seconds, "per": per, "ratio_to": to,
        "ratio": timing.seconds / timings[to].seconds if to and timings else None,
        "peak_memory_bytes": timing.peak_memory, "runs": timing.runs, **more,
    }  # fmt: skip
