"""The least that a machine can take: operations and bytes counted from the networks, over the rates it reaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.pipeline import Pipeline
from torch import nn

from benchmarks.timing.stopwatch import clock
from skmimood.networks.transformer import TokenTransformer
from skmimood.networks.vqvae import VQVAE, Downsample, SpatialAttention, Upsample
from skmimood.networks.weights import empty_network

_SECONDS_OF_A_RATE = 0.5
_BANDWIDTH_BYTES = 2**28  # beyond any cache


@dataclass(frozen=True)
class Work:
    """Operations and bytes of one or more passes.

    Attributes
    ----------
    flops : float
        Additions and multiplications of matrix products and convolutions; all else is small.
    bytes : float
        Weights read once, and what a pass reads and writes if all within a layer stays in the registers.
    """

    flops: float
    bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class Machine:
    """What a device reaches.

    Attributes
    ----------
    flops : float
        Operations a second of a large matrix product, in the precision in question.
    bandwidth : float
        Bytes a second of a large copy, both ways counted.
    itemsize : int
        Bytes of a number in that precision.
    """

    flops: float
    bandwidth: float
    itemsize: int

    def seconds(self, work: Work) -> float:
        """Return the least seconds that the work takes: the longer of computing and moving."""
        return max(work.flops / self.flops, work.bytes / self.bandwidth)


def measure_machine(device: torch.device, dtype: torch.dtype, *, side: int | None = None) -> Machine:
    """Measure a device by a matrix product of this side (default: 8192 on CUDA, 2048 else) and a copy of 256 MB."""
    side = side or (8192 if device.type == "cuda" else 2048)
    matrix = torch.rand(side, side, device=device).to(dtype)
    block = torch.zeros(_BANDWIDTH_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(block)
    return Machine(
        flops=2 * side**3 * _rate(lambda: matrix @ matrix, device),
        bandwidth=2 * _BANDWIDTH_BYTES * _rate(lambda: target.copy_(block), device),
        itemsize=dtype.itemsize,
    )


def _rate(run: Callable[[], Any], device: torch.device) -> float:
    """Return how often a second something can be done: the best of half a second, after a warm-up."""
    run()
    best, until = float("inf"), time.perf_counter() + _SECONDS_OF_A_RATE
    while time.perf_counter() < until:
        start = clock(device)
        run()
        best = min(best, clock(device) - start)
    return 1 / best


def transformer_work(
    config: Mapping[str, Any], n: int, itemsize: int, *, share: float = 1.0, kept: float = 1.0
) -> Work:
    """Count one pass of a `TokenTransformer` over n slices.

    Parameters
    ----------
    config : mapping
        Arguments of the network.
    n : int
        Slices.
    itemsize : int
        Bytes of a number.
    share : float, default=1.0
        Of the positions whose output is wanted. The last block needs its queries and MLP, and the head is needed, at
        those alone.
    kept : float, default=1.0
        Of the positions that take part at all.

    Returns
    -------
    Work
    """
    size, width, depth = config["grid"][0] * config["grid"][1], config["width"], config["depth"]
    hidden = int(width * config["mlp_ratio"])
    length, rows = size * kept, size * kept * share
    keys_values = 2 * length * 2 * width * width
    per_row = (
        2 * width * width * 2 + 2 * 2 * length * width + 2 * 2 * width * hidden
    )  # query, out; attention; MLP
    head = rows * 2 * width * config["n_outputs"]
    flops = depth * keys_values + ((depth - 1) * length + rows) * per_row + head
    weights = sum(parameter.numel() for parameter in empty_network(TokenTransformer, config).parameters())
    # Attention and MLP of each block read the stream of activations and write it.
    activations = 4 * depth * length * width
    return Work(n * flops, itemsize * (weights + n * activations))


def encoder_work(config: Mapping[str, Any], grid: tuple[int, int], n: int, itemsize: int) -> Work:
    """Count the encoder of a `VQVAE` over n slices of h x w tokens; the search for the nearest code is left out."""
    halvings = 2 ** (len(config["channel_multipliers"]) - 1)
    layers = list(empty_network(VQVAE, config).encoder)
    return _convolution_work(layers, (grid[0] * halvings, grid[1] * halvings), n, itemsize)


def decoder_work(config: Mapping[str, Any], grid: tuple[int, int], n: int, itemsize: int) -> Work:
    """Count the decoder of a `VQVAE` over the tokens (n, h, w) of n slices."""
    network = empty_network(VQVAE, config)
    layers = [*network.decoder, *network.to_image]
    return _convolution_work(layers, grid, n, itemsize)


def _convolution_work(layers: list[nn.Module], shape: tuple[int, int], n: int, itemsize: int) -> Work:
    """Count layers one after the other, from feature maps of this shape on."""
    height, width = shape
    flops = moved = weights = 0
    for layer in layers:
        convolutions = [module for module in layer.modules() if isinstance(module, nn.Conv2d)]
        if not convolutions:
            continue
        before = height * width
        if isinstance(layer, Upsample):
            height, width = 2 * height, 2 * width
        elif isinstance(layer, Downsample):
            height, width = height // 2, width // 2
        size = sum(module.weight.numel() for module in convolutions)
        flops += 2 * height * width * size
        if isinstance(layer, SpatialAttention):
            flops += 2 * 2 * (height * width) ** 2 * layer.out.in_channels
        moved += before * convolutions[0].in_channels + height * width * convolutions[-1].out_channels
        weights += size
    return Work(n * flops, itemsize * (weights + n * moved))


def restoration_passes(
    pipeline: Pipeline, n: int, *, share: float, itemsize: int, kept: float = 1.0
) -> list[Work]:
    """Count what restoring n slices takes, pass by pass.

    Parameters
    ----------
    pipeline : fitted Pipeline
        Tokenizer, detector and in-painter, with R and T.
    n : int
        Slices.
    share : float
        Of the tokens masked at each step.
    itemsize : int
        Bytes of a number.
    kept : float, default=1.0
        Of the tokens that take part, where those off the head are left out.

    Returns
    -------
    list of Work
        Encoder, the first passes of detector and in-painter, which all restorations share, their other T - 1 passes,
        and the decoder.
    """
    tokenizer, detector, inpainter = (step for _, step in pipeline.steps)
    n_steps, n_chains = inpainter.n_steps, inpainter.n_restorations * n
    scored, detected = (transformer_work(detector.config_, m, itemsize, kept=kept) for m in (n, n_chains))
    first, painted = (
        transformer_work(inpainter.config_, m, itemsize, share=share / kept, kept=kept) for m in (n, n_chains)
    )
    return [
        encoder_work(tokenizer.config_, tokenizer.grid_, n, itemsize),
        scored,
        *[detected] * (n_steps - 1),
        first,
        *[painted] * (n_steps - 1),
        decoder_work(tokenizer.config_, tokenizer.grid_, n_chains, itemsize),
    ]


def restoration_floor(
    pipeline: Pipeline, n: int, machine: Machine, *, share: float, kept: float = 1.0
) -> float:
    """Return the least seconds in which a machine restores n slices; parameters as in `restoration_passes`."""
    passes = restoration_passes(pipeline, n, share=share, itemsize=machine.itemsize, kept=kept)
    return sum(machine.seconds(work) for work in passes)


def training_flops(forward: Work) -> float:
    """Return the operations of a training step: the forward pass, and twice as many backward."""
    return 3 * forward.flops
