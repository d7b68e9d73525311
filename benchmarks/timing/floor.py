"""The least time that a machine can take: operations and bytes of the networks, over the rates that it reaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.pipeline import Pipeline
from torch import Tensor, nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from skmimood.networks.transformer import TokenTransformer
from skmimood.networks.vqvae import VQVAE
from skmimood.networks.weights import empty_network

_SECONDS_OF_A_RATE = 0.5
_BANDWIDTH_BYTES = 2**28  # beyond any cache


@dataclass(frozen=True)
class Work:
    """Operations of matrix products and convolutions, and bytes of weights and activations, of one or more passes."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Machine:
    """Operations a second of a large product, bytes a second of a large copy, bytes of a number in one precision."""

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
        flops=2 * side**3 * _rate(lambda: matrix @ matrix),
        bandwidth=2 * _BANDWIDTH_BYTES * _rate(lambda: target.copy_(block)),
        itemsize=dtype.itemsize,
    )


def _rate(run: Callable[[], Any]) -> float:
    """Return how often a second something can be done, at best."""
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return 1 / min(timer.blocked_autorange(min_run_time=_SECONDS_OF_A_RATE).times)


def transformer_work(
    config: Mapping[str, Any], n: int, itemsize: int, *, share: float = 1.0, kept: float = 1.0
) -> Work:
    """Count a pass over n slices, if only a share of positions is ``kept``, and only a share of these has an output."""
    size, width, depth = config["grid"][0] * config["grid"][1], config["width"], config["depth"]
    length, rows = size * kept, size * kept * share
    keys_values = 2 * length * 2 * width * width
    query_and_out, attention = 2 * 2 * width * width, 2 * 2 * length * width
    mlp = 2 * 2 * width * int(width * config["mlp_ratio"])
    per_row = query_and_out + attention + mlp
    # The last block needs its queries and MLP at the rows with an output alone, and so does the head.
    head = rows * 2 * width * config["n_outputs"]
    flops = depth * keys_values + ((depth - 1) * length + rows) * per_row + head
    # Attention and MLP of each block read the stream of activations and write it.
    moved = _n_weights(empty_network(TokenTransformer, config)) + n * 4 * depth * length * width
    return Work(n * flops, itemsize * moved)


def encoder_work(config: Mapping[str, Any], grid: tuple[int, int], n: int, itemsize: int) -> Work:
    """Count the encoder of a `VQVAE` over n slices of h x w tokens; the search for the nearest code is left out."""
    network = empty_network(VQVAE, config)
    height, width = (side * network.downsampling for side in grid)
    return _convolution_work(network.encoder, torch.zeros(n, 1, height, width, device="meta"), itemsize)


def decoder_work(config: Mapping[str, Any], grid: tuple[int, int], n: int, itemsize: int) -> Work:
    """Count the decoder of a `VQVAE` over the tokens (n, h, w) of n slices."""
    network = empty_network(VQVAE, config)
    codes = torch.zeros(n, config["code_dim"], *grid, device="meta")
    return _convolution_work(nn.Sequential(*network.decoder, *network.to_image), codes, itemsize)


def _convolution_work(layers: nn.Sequential, x: Tensor, itemsize: int) -> Work:
    """Count layers over ``x`` without values; each reads its input and its weights once, and writes its output."""
    moved = _n_weights(layers)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for layer in layers:
            before, x = x.numel(), layer(x)
            moved += (before + x.numel()) * any(isinstance(part, nn.Conv2d) for part in layer.modules())
    return Work(counter.get_total_flops(), itemsize * moved)


def _n_weights(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def restoration_passes(
    pipeline: Pipeline, n: int, *, share: float, itemsize: int, kept: float = 1.0
) -> list[Work]:
    """Count each pass of a MIM-OOD pipeline with its R and T; the R restorations share the first of each network."""
    tokenizer, detector, inpainter = (step for _, step in pipeline.steps)
    n_others, n_chains = inpainter.n_steps - 1, inpainter.n_restorations * n
    scored, detected = (transformer_work(detector.config_, m, itemsize, kept=kept) for m in (n, n_chains))
    first, painted = (
        transformer_work(inpainter.config_, m, itemsize, share=share / kept, kept=kept) for m in (n, n_chains)
    )
    encoded = encoder_work(tokenizer.config_, tokenizer.grid_, n, itemsize)
    decoded = decoder_work(tokenizer.config_, tokenizer.grid_, n_chains, itemsize)
    return [encoded, scored, *[detected] * n_others, first, *[painted] * n_others, decoded]


def restoration_floor(
    pipeline: Pipeline, n: int, machine: Machine, *, share: float, kept: float = 1.0
) -> float:
    """Return the least seconds in which a machine restores n slices; parameters as in `restoration_passes`."""
    passes = restoration_passes(pipeline, n, share=share, itemsize=machine.itemsize, kept=kept)
    return sum(map(machine.seconds, passes))
