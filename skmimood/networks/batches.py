"""Networks applied to more rows than fit at once; a device that runs out of memory gets batches of half the size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skmimood.networks.marks import lengths
from skmimood.runtime.device import inference, with_halving

_CPU_BATCH, _CUDA_BATCHES = 4, 4


def run_transformer(function: Callable[[Tensor], Tensor], rows: Tensor, batch_size: int) -> Tensor:
    """Apply a transformer to token grids `in_order_of_length`, in batches of equal length.

    So no row depends on its neighbours. A GPU gets four times ``batch_size``, which fits without gradients; a CPU gets
    four rows, whose attention weights stay in its cache.
    """
    groups = rows.split(lengths(rows).unique_consecutive(return_counts=True)[1].tolist())

    def run(size: int) -> Tensor:
        at_once = min(size, _CPU_BATCH) if rows.device.type == "cpu" else _CUDA_BATCHES * size
        return torch.cat([function(batch) for group in groups for batch in group.split(at_once)])

    with inference(rows.device):
        return with_halving(run, batch_size)


def run_in_batches(function: Callable[[Tensor], Tensor], rows: Tensor, batch_size: int) -> Tensor:
    """Apply ``function`` to ``rows`` in batches and join the results."""
    with inference(rows.device):
        return with_halving(lambda size: torch.cat([*map(function, rows.split(size))]), batch_size)
