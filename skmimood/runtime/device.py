"""On which device and in which precision a network runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from skmimood.exceptions import DeviceError, InputError
from skmimood.runtime.distributed import local_rank
from skmimood.runtime.threads import prepare_threads

Result = TypeVar("Result")

PRECISIONS = ("auto", "float32", "bfloat16")
_CPU_PROBES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device named ``"auto"`` (CUDA if there is one, else the CPU), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    With ``"auto"`` each process that torchrun starts has a CUDA device of its own. Raise `DeviceError` if the device is
    not there, or this process has lost torch's threads in a fork.
    """
    prepare_threads()
    if device == "auto":
        return _automatic_device()
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"device={device!r} is not a device; use 'auto', 'cpu', 'cuda' or 'cuda:0'."
        ) from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device={str(device)!r} is not there: torch sees {torch.cuda.device_count()} CUDA device(s). "
            "Use device='cpu' or 'auto'."
        )
    if resolved.type not in ("cpu", "cuda"):
        try:
            torch.zeros(1, device=resolved).cpu()
        except (RuntimeError, AssertionError, ImportError) as error:  # depends on the device
            raise DeviceError(
                f"device={str(device)!r} is not there, or cannot compute here. Use device='cpu' or 'auto'."
            ) from error
    return resolved


def _automatic_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local, n_devices = local_rank(), torch.cuda.device_count()
    if local is not None and local >= n_devices:
        raise DeviceError(
            f"Process {local} of this machine has no CUDA device: torch sees {n_devices}. Start no more "
            "processes than devices with torchrun --nproc-per-node, or use device='cpu'."
        )
    return torch.device("cuda" if local is None else f"cuda:{local}")


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of matrix products; ``"auto"`` is bfloat16 if the hardware has units for it."""
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {PRECISIONS}; got {precision!r}.")
    if precision == "auto":
        return torch.bfloat16 if _has_bfloat16_units(device) else torch.float32
    return getattr(torch, precision)


def _has_bfloat16_units(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and any(getattr(torch.cpu, probe, bool)() for probe in _CPU_PROBES)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the context in which forward passes run their matrix products in ``dtype``."""
    # torch's cache of weights would keep old ones until the outermost autocast ends.
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16, cache_enabled=False)


@contextlib.contextmanager
def inference(device: torch.device) -> Iterator[None]:
    """Compute without gradients and outside the autocast of the caller."""
    with torch.inference_mode(), autocast(device, torch.float32):
        yield


@contextlib.contextmanager
def learning(device: torch.device) -> Iterator[None]:
    """Compute with gradients, outside the ``no_grad``, ``inference_mode`` and autocast of the caller."""
    with torch.inference_mode(False), torch.enable_grad(), autocast(device, torch.float32):
        yield


def with_halving(run: Callable[[int], Result], batch_size: int) -> Result:
    """Return ``run(batch_size)``; if the device runs out of memory, try half of it, once, then raise `DeviceError`."""
    if batch_size > 1:
        with contextlib.suppress(torch.OutOfMemoryError):
            return run(batch_size)
        # Here the error is gone, and with it the tensors that its traceback held.
        batch_size = batch_size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    with out_of_memory_advice(batch_size):
        return run(batch_size)


@contextlib.contextmanager
def out_of_memory_advice(batch_size: int) -> Iterator[None]:
    """Turn CUDA's out-of-memory error into advice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        advice = (
            f"try training__batch_size={batch_size // 2}"
            if batch_size > 1
            else "try device='cpu' or smaller images"
        )
        raise DeviceError(
            f"The device ran out of memory at training__batch_size={batch_size}; {advice}."
        ) from error
