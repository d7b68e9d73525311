"""Building networks and moving their weights to and from numpy, without touching torch's global generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def empty_network(network_class: type[Network], config: Mapping[str, Any]) -> Network:
    """Build a network whose weights, float32, have shapes but no values and take no memory."""
    with torch.device("meta"):
        return network_class(**config).to(torch.float32)


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


def load_network(
    network_class: type[Network], config: Mapping[str, Any], state: Mapping[str, np.ndarray]
) -> Network:
    """Build a network on the CPU around the weights that `network_state` returned."""
    network = empty_network(network_class, config)
    # assign=True replaces the valueless weights; the copies keep the caller's arrays from being shared.
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    network.load_state_dict(tensors, assign=True)
    return network.requires_grad_(False)


def network_state(network: nn.Module) -> dict[str, np.ndarray]:
    """Return the weights and buffers as numpy arrays: free of devices, stable under `joblib.hash`."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in network.state_dict().items()}
