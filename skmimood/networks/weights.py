"""Weights of networks: drawn without torch's global generator, and moved to and from numpy."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

_BUILT = 4  # times as many weights as it keeps are built for a network, of which it leaves out parts

Network = TypeVar("Network", bound=nn.Module)


class _TooManyWeightsError(Exception):
    """Ends the building of a network that a forged file describes."""


def empty_network(network_class: type[Network], config: Mapping[str, Any]) -> Network:
    """Build a network with float32 weights that have shapes but no values and take no memory."""
    with torch.device("meta"):
        return network_class(**config).to(torch.float32)


def weight_shapes(
    network_class: type[Network], config: Mapping[str, Any], n_expected: int
) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of a network's weights and buffers by name.

    None if it has many more than ``n_expected`` of them; it is not built further then.
    """
    n_built, here = itertools.count(1), threading.get_ident()

    def count(*registered: Any) -> None:
        if threading.get_ident() == here and next(n_built) > _BUILT * n_expected:
            raise _TooManyWeightsError

    try:
        # The hook hears of every network that any thread builds meanwhile.
        with register_module_parameter_registration_hook(count):
            network = empty_network(network_class, config)
    except _TooManyWeightsError:
        return None
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def new_network(
    network_class: type[Network], config: Mapping[str, Any], generator: torch.Generator
) -> Network:
    """Build a network on the CPU and draw its weights from ``generator``."""
    network = empty_network(network_class, config).to_empty(device="cpu")
    for buffer in network.buffers():
        buffer.zero_()
    for module in network.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    network.initialise(generator)  # type: ignore[operator]
    return network


def initialise_matrices(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of linear layers and embeddings from N(0, 0.02), with biases of 0, as in GPT-2."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02, generator=generator)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def initialise_convolutions(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of convolutions from torch's own default law (He et al. 2015, a = sqrt(5))."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert module.bias is not None
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)


def in_float32(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a last layer in float32 even under autocast: bfloat16 would show as steps in residuals and scores."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.float())


def load_network(
    network_class: type[Network], config: Mapping[str, Any], state: Mapping[str, np.ndarray]
) -> Network:
    """Build a network on the CPU around the weights that `network_state` returned."""
    network = empty_network(network_class, config)
    # assign=True replaces the empty weights; the copies are not shared with the caller.
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    network.load_state_dict(tensors, assign=True)
    return network.requires_grad_(False)


def network_state(network: nn.Module) -> dict[str, np.ndarray]:
    """Return the weights and buffers as numpy arrays, which no device and no torch is needed to read."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in network.state_dict().items()}
