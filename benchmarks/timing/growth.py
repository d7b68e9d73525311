"""How the cost of a restoration grows with one thing at a time, and how the floor does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.timing.floor import Machine, restoration_floor
from benchmarks.timing.stopwatch import interleave, maps_of
from benchmarks.timing.untrained import MASKED_SHARE, Networks, build, phantoms, set_restoration

SERIES: dict[str, tuple[float, ...]] = {
    "images": (8, 16, 32, 64, 128, 256),
    "T": (1, 2, 4, 8, 16),
    "R": (1, 2, 4, 8, 16),
    "image size": (64, 96, 128, 192, 256),
    "masked share": (0.01, 0.025, 0.05, 0.1, 0.2, 0.4),
}


def grow(
    networks: Networks, preset: str, device: torch.device, machine: Machine, *, n_images: int, repeats: int,
    patience: float,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Time MIM-OOD along each series; what is not varied is R = 4, T = 8, the preset's size and 5 % masked.

    Parameters
    ----------
    networks : Networks
        Of the preset's size.
    preset : str
    device : torch.device
    machine : Machine
        For the floor.
    n_images : int
        Where the number of images is not varied.
    repeats : int
        Runs of each point.
    patience : float
        A series ends after a point that takes more seconds than this.

    Yields
    ------
    dict
        ``series``, ``value``, ``images``, ``seconds``, ``floor_seconds``, ``peak_memory_bytes`` of each point.
    """
    for series, values in SERIES.items():
        for value in values:
            n, share = int(value) if series == "images" else n_images, MASKED_SHARE
            pipeline, size = networks.mimood, networks.size
            if series == "image size":
                size = int(value)
                pipeline = build(preset, str(device), size=size, with_rivals=False).mimood
            elif series == "masked share":
                share = value
            n_steps = int(value) if series == "T" else 8
            n_restorations = int(value) if series == "R" else 4
            set_restoration(pipeline, n_steps, n_restorations, share)
            images = phantoms(n, size)
            subject = maps_of(series, pipeline, images)
            timing = interleave([subject], device, repeats=repeats, patience=patience)[series]
            yield {
                "series": series, "value": value, "images": n, "seconds": timing.seconds, "masked_share": share,
                "floor_seconds": restoration_floor(pipeline, n, machine, share=share),
                "peak_memory_bytes": timing.peak_memory,
            }  # fmt: skip
            set_restoration(pipeline)
            if timing.seconds > patience:
                break
