"""One training in several processes: what all agree on, who writes, and a batch divided among them.

Every process has the same data, makes the same draws for the whole batch, and computes its own rows. So the weights are
those of a training in one process, up to the rounding of sums.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from multiprocessing import parent_process
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from skmimood.exceptions import InputError

Value = TypeVar("Value")

_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = timedelta(days=1)  # while the first process reads a large cache, or waits for its lock


class _Share(NamedTuple):
    """How many rows of a batch each process computes, and which are those of this one."""

    sizes: tuple[int, ...]
    own: slice

    @classmethod
    def of(cls, n_rows: int) -> _Share:
        n, rank = n_processes(), dist.get_rank()
        sizes = tuple(n_rows // n + (index < n_rows % n) for index in range(n))
        return cls(sizes, slice(sum(sizes[:rank]), sum(sizes[: rank + 1])))


_share: ContextVar[_Share | None] = ContextVar("share", default=None)  # of the batch in a network
_alone: ContextVar[bool] = ContextVar("alone", default=False)  # the others wait for this process


def join() -> None:
    """Join the processes that torchrun has started; do nothing without it, or if they have joined before."""
    local = local_rank()
    if local is None or not dist.is_available() or dist.is_initialized():
        return
    has_cuda = torch.cuda.is_available()
    if has_cuda and local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if has_cuda else "gloo", timeout=_PATIENCE)
    atexit.register(lambda: dist.is_initialized() and dist.destroy_process_group())


def local_rank() -> int | None:
    """Return the number that torchrun gave this process on its machine, None if torchrun did not start it.

    A worker of joblib inherits the variables of the process that started it, but is not one of torchrun's.
    """
    if not all(name in os.environ for name in _TORCHRUN) or parent_process() is not None:
        return None
    return int(os.environ["LOCAL_RANK"])


def n_processes() -> int:
    """Return the number of processes that train together, 1 without torch.distributed."""
    if _alone.get() or not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


def is_first() -> bool:
    """Return whether this process is the one that writes."""
    return rank() == 0


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if n_processes() > 1 else 0


def broadcast(value: Value) -> Value:
    """Return the value that the first process has."""
    if n_processes() == 1:
        return value
    box = [value if is_first() else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def on_first(function: Callable[[], Value]) -> Value:
    """Call ``function`` in the first process alone; all return its result, or raise its error."""
    if n_processes() == 1:
        return function()
    result, error = None, None
    if is_first():
        token = _alone.set(True)
        try:
            result = function()
        except Exception as raised:
            error = raised
        finally:
            _alone.reset(token)
    result, error = broadcast((result, error))
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def check_same(fingerprint: str) -> None:
    """Raise `InputError` unless all processes have the same ``fingerprint`` of data and parameters."""
    fingerprints: list[Any] = [None] * n_processes()
    dist.all_gather_object(fingerprints, fingerprint)
    if len(set(fingerprints)) > 1:
        raise InputError(
            f"The {len(fingerprints)} processes of one training got different data or parameters. Pass the same to "
            "fit in all of them; it divides each batch itself."
        )


def total(value: float, device: torch.device) -> float:
    """Return the sum of the values of all processes."""
    if n_processes() == 1:
        return value
    number = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(number)
    return number.item()


def divided(network: nn.Module) -> Any:
    """Return ``network``, or in several processes one that takes and returns whole batches but computes a share."""
    return network if n_processes() == 1 else _Divided(network)


def sum_gradients(network: nn.Module) -> None:
    """Add up the gradients of all processes."""
    if n_processes() == 1:
        return
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])  # one message instead of hundreds
    dist.all_reduce(flat)
    nn.utils.vector_to_parameters(flat, gradients)


class _Divided:
    """A network that gets the whole batch (n, ...), computes the rows of this process, and returns those of all.

    A gradient reaches only the rows of this process, so the gradients of all processes add up to that of the batch. A
    result without rows is taken for a mean over them.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, *arguments: Any) -> Any:
        share = _Share.of(next(len(one) for one in arguments if isinstance(one, Tensor)))
        token = _share.set(share)
        try:
            return _joined(
                self._network(*(one[share.own] if isinstance(one, Tensor) else one for one in arguments))
            )
        finally:
            _share.reset(token)


def _joined(output: Any) -> Any:
    if isinstance(output, Tensor):
        return all_rows(output) if output.ndim else _mean(output)
    return getattr(type(output), "_make", tuple)(map(_joined, output))  # a tuple, of a name or none


def all_rows(rows: Tensor) -> Tensor:
    """Return the rows (m, ...) of all processes inside a divided network; ``rows`` elsewhere.

    A gradient reaches only those of this process. A batch of n may have any multiple of n rows.
    """
    share = _share.get()
    if share is None:
        return rows
    multiple = len(rows) // (share.own.stop - share.own.start)
    longest = rows.new_zeros(max(share.sizes) * multiple, *rows.shape[1:])  # every process sends as many
    longest[: len(rows)] = rows.detach()
    received = [torch.empty_like(longest) for _ in share.sizes]
    dist.all_gather(received, longest)
    parts = [part[: size * multiple] for part, size in zip(received, share.sizes, strict=True)]
    parts[dist.get_rank()] = rows
    return torch.cat(parts)


def _mean(mean: Tensor) -> Tensor:
    """Return the mean over the rows of all processes, from that over the rows of this one."""
    share = _share.get()
    assert share is not None
    weight = (share.own.stop - share.own.start) / sum(share.sizes)
    whole = mean.detach() * weight
    dist.all_reduce(whole)
    return whole + (mean - mean.detach()) * weight  # the same bits in all processes, with a gradient


def draw_uniforms(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one number in [0, 1) for each of ``rows`` (n, ...), shape (n, 1, 1), as if drawn for the whole batch."""
    share = _share.get()
    n_rows = len(rows) if share is None else sum(share.sizes)
    drawn = torch.rand(n_rows, 1, 1, generator=generator, device=rows.device, dtype=torch.float32)
    return drawn if share is None else drawn[share.own]
