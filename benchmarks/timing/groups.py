"""The groups of ``speed``: each measures one thing in a session, and yields its records."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import nibabel as nib
import numpy as np
import torch
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.timing import networks
from benchmarks.timing.floor import Machine, decoder_work, encoder_work, restoration_floor, transformer_work
from benchmarks.timing.networks import MASKED_SHARE, set_restoration
from benchmarks.timing.plain_reading import at_precision, plain_maps
from benchmarks.timing.session import Record, Session, record
from benchmarks.timing.stopwatch import Timing, clock, measure, memory_kind, peak_resident
from skmimood import restoration_path
from skmimood.runtime.device import resolve_device

N_STEPS, N_RESTORATIONS = (1, 2, 4, 8), (1, 2, 3, 4)
SHARES = (0.02, 0.035, 0.05, 0.075, 0.1)  # masked by the five lambdas of the grid
SERIES: dict[str, tuple[float, ...]] = {  # what the growth varies, one thing at a time
    "images": (8, 16, 32, 64, 128, 256),
    "T": (1, 2, 4, 8, 16),
    "R": (1, 2, 4, 8, 16),
    "image size": (64, 96, 128, 192, 256),
    "masked share": (0.01, 0.025, 0.05, 0.1, 0.2, 0.4),
}
_IMPORTS = 5
_ROUNDING, _DECIDED_BY_ROUNDING = 1e-2, 1e-2  # of the largest map value; share of the pixels beyond it
_TRAINING_IMAGES = 32
# bfloat16 products as they run there; memory as specified
_H200 = Machine(flops=790e12, bandwidth=4.8e12, itemsize=2)


def restorations(session: Session) -> Iterator[Record]:
    """Time MIM-OOD, with and without the tokens off the head, its plain reading, and its rivals on the same slices."""
    fitted, plan = session.networks, session.plan
    images, machine, share = session.images(plan.images), session.machine, session.share
    every, measured = networks.uncached_share(fitted.autoregressive, plan.positions)
    ours, exact = networks.without_background(fitted.mimood), at_precision(fitted.mimood, "float32")
    kept = networks.share_kept(images, ours["tokenizer"].downsampling)
    timings = session.interleave({
        "mimood_r4_t8": partial(ours.decision_function, images),
        "mimood_whole_grid": partial(fitted.mimood.decision_function, images),
        "mimood_reference": partial(plain_maps, exact, images),
        "mimood_default": partial(fitted.recipe.decision_function, images),
        "ar_r4_uncached": partial(
            networks.restore_uncached, fitted.autoregressive, images, every, measured, session.device
        ),
        "ar_r4_cached": partial(fitted.autoregressive.decision_function, images),
        "token_critic_r4": partial(fitted.critic.decision_function, images),
    })  # fmt: skip
    recipe = fitted.recipe[-1]
    own: dict[str, Record] = {
        "mimood_r4_t8": {
            "floor_seconds": restoration_floor(ours, len(images), machine, share=share, kept=kept),
            "matmul_flops": machine.flops, "memory_bandwidth": machine.bandwidth, "share_of_tokens": kept,
        },
        "mimood_whole_grid": {
            "floor_seconds": restoration_floor(fitted.mimood, len(images), machine, share=share),
        },
        "mimood_reference": {"precision": "float32"},
        "mimood_default": {"n_steps": recipe.n_steps, "n_restorations": recipe.n_restorations},
        "ar_r4_uncached": {"measured_share": measured},
    }  # fmt: skip
    n_tokens = int(np.prod(fitted.mimood["tokenizer"].grid_))
    common = {"images": len(images), "tokens": n_tokens, "masked_share": share}
    for name, timing in timings.items():
        to = None if name == "mimood_r4_t8" else "mimood_r4_t8"
        yield record(name, timing, f"{len(images)} images", to, timings, **common, **own.get(name, {}))


def grid(session: Session) -> Iterator[Record]:
    """Time a grid of 80 candidates one by one, along the path, and the last candidate alone."""
    pipeline, images = session.networks.mimood, session.images(session.plan.grid_images)
    thresholds = [1 - share for share in SHARES]
    candidates = ParameterGrid({
        "detector__threshold": thresholds, "inpainter__n_steps": N_STEPS, "inpainter__n_restorations": N_RESTORATIONS,
    })  # fmt: skip
    separately: dict[tuple[Any, ...], np.ndarray] = {}
    along_path: dict[tuple[Any, ...], np.ndarray] = {}

    def separate() -> None:
        for candidate in candidates:
            separately[_named(candidate)] = pipeline.set_params(**candidate).decision_function(images)

    def path() -> None:
        run = restoration_path(
            pipeline, images, thresholds=thresholds, n_steps=N_STEPS, n_restorations=N_RESTORATIONS
        )
        along_path.update((_named(candidate), maps) for candidate, maps in run)

    def one() -> None:
        set_restoration(pipeline, N_STEPS[-1], N_RESTORATIONS[-1], session.share).decision_function(images)

    timings = session.interleave({"grid_80_separate": separate, "grid_80_path": path, "grid_1": one})
    set_restoration(pipeline, share=session.share)
    is_equal = separately.keys() == along_path.keys() and all(
        _are_same(maps, along_path[candidate]) for candidate, maps in separately.items()
    )
    equal = {"equal_maps": is_equal, "images": len(images)}
    for name, to in (("grid_80_separate", "grid_80_path"), ("grid_80_path", "grid_1"), ("grid_1", None)):
        yield record(name, timings[name], f"{len(images)} images", to, timings, **equal)


def _named(candidate: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted((name, round(float(value), 6)) for name, value in candidate.items()))


def _are_same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Tell whether maps are equal but for the rounding of bfloat16, which may decide which token is drawn."""
    differs = np.abs(found - expected) > _ROUNDING * expected.max()
    return bool(differs.mean() <= _DECIDED_BY_ROUNDING)


def training(session: Session) -> Iterator[Record]:
    """Time steps of the preset's own trainings: of the tokenizer, and of the in-painter for the transformers."""
    fitted, size = session.networks.mimood, session.dtype.itemsize
    images = session.images(_TRAINING_IMAGES)
    tokenizer, inpainter = fitted["tokenizer"], fitted["inpainter"]
    n = tokenizer.training.batch_size
    coded = encoder_work(tokenizer.config_, tokenizer.grid_, n, size)
    coded += decoder_work(tokenizer.config_, tokenizer.grid_, n, size)
    painted = transformer_work(inpainter.config_, inpainter.training.batch_size, size)
    for name, estimator, X, forward in (
        ("train_tokenizer_step", tokenizer, images, coded),
        ("train_transformer_step", inpainter, fitted[:-1].transform(images), painted),
    ):
        batch = estimator.training.batch_size
        seconds: list[float] = []
        run = partial(step_seconds, clone(estimator), X, session.plan.train_steps, session.device, seconds)
        _, memory = measure(run, session.device)
        timing = Timing(seconds, memory)
        rate = 3 * forward.flops / timing.seconds  # forward, and twice as much backward
        yield record(
            name, timing, f"step of {batch} images", batch_size=batch, images_per_second=batch / timing.seconds,
            flops=rate, share_of_matmul=rate / session.machine.flops, matmul_flops=session.machine.flops,
        )  # fmt: skip


class _EnoughError(Exception):
    """Ends a training that has been timed long enough."""


def step_seconds(estimator: Any, X: Any, n_steps: int, device: torch.device, seconds: list[float]) -> None:
    """Start a fit and note the seconds of its steps, of which the first is not counted; it is not brought to an end.

    Validations and copies of the weights, of which a training has twenty, are none of them.
    """
    ticks: list[float] = []

    def tick(*_: Any) -> None:
        ticks.append(clock(device))
        if len(ticks) > n_steps:
            raise _EnoughError

    hook = register_optimizer_step_post_hook(tick)
    try:
        estimator.fit(X)
    except _EnoughError:
        pass
    finally:
        hook.remove()
    seconds += np.diff(ticks).tolist()


def volume(session: Session) -> Iterator[Record]:
    """Score a synthetic volume in a process of its own, so that its peak memory holds nothing else."""
    shape, share = session.plan.volume, session.share
    asked = (session.preset, str(session.device), shape, session.size, share, torch.get_num_threads())
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        timing, kind = pool.submit(score_volume, *asked).result()
    yield record(
        "score_volume", timing, f"volume of {'x'.join(map(str, shape))}", images=shape[2], memory_kind=kind,
        masked_share=share,
    )  # fmt: skip


def score_volume(
    preset: str, device: str, shape: tuple[int, int, int], size: int, share: float, threads: int
) -> tuple[Timing, str]:
    """Score a volume with R = 4 and T = 8; return the timing, and what its peak memory is of."""
    torch.set_num_threads(threads)
    fitted = networks.build(preset, device, size=size, share=share, with_rivals=False)
    detector = networks.scan_detector(fitted.mimood, size)
    image = nib.Nifti1Image(networks.synthetic_head(shape), np.eye(4))

    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of thresholds that mean nothing
            detector.detect_scan(image)

    where = resolve_device(device)
    seconds, memory = measure(run, where)
    kind = memory_kind(where)
    if where.type == "cpu":  # networks, libraries and the short fit are in it
        memory, kind = peak_resident(), "resident, whole process"
    return Timing([seconds], memory), kind


def imports(session: Session) -> Iterator[Record]:
    """Time ``import skmimood`` in fresh interpreters, without their own start."""
    yield record("import", Timing([import_seconds() for _ in range(_IMPORTS)]), "import")


def import_seconds() -> float:
    """Time an import in a fresh interpreter, without the interpreter's own start."""
    code = "import time; start = time.perf_counter(); import skmimood; print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def growth(session: Session) -> Iterator[Record]:
    """Time MIM-OOD along each series; what is not varied is R = 4, T = 8, the preset's size and 5 % masked.

    A series ends after a point that takes longer than the patience.
    """
    for series, values in SERIES.items():
        for value in values:
            n = int(value) if series == "images" else session.plan.grid_images
            share = value if series == "masked share" else MASKED_SHARE
            pipeline, size = session.networks.mimood, session.size
            if series == "image size":
                size = int(value)
                device = str(session.device)
                pipeline = networks.build(session.preset, device, size=size, with_rivals=False).mimood
            n_steps, n_chains = (int(value) if series == name else n for name, n in (("T", 8), ("R", 4)))
            set_restoration(pipeline, n_steps, n_chains, share)
            run = partial(pipeline.decision_function, networks.phantoms(n, size))
            timing = session.interleave({series: run}, min(session.plan.repeats, 2))[series]
            floor = restoration_floor(pipeline, n, session.machine, share=share)
            set_restoration(pipeline)
            per = f"{n} images, {series} {value:g}"
            yield {
                "name": f"grow_{series.replace(' ', '_')}", "per": per, "ratio_to": None, "ratio": None,
                "series": series, "value": value, "images": n, "seconds": timing.seconds, "masked_share": share,
                "floor_seconds": floor, "peak_memory_bytes": timing.peak_memory,
            }  # fmt: skip
            if timing.seconds > session.plan.patience:
                break


def on_paper(session: Session) -> Iterator[Record]:
    """Compute what the restorations must take on an NVIDIA H200, whether or not there is one."""
    n, share = session.plan.images, session.share
    seconds = restoration_floor(session.networks.mimood, n, _H200, share=share)
    told: Record = {
        "device": "NVIDIA H200, on paper", "precision": "bfloat16", "images": n, "masked_share": share,
        "matmul_flops": _H200.flops, "memory_bandwidth": _H200.bandwidth,
    }  # fmt: skip
    yield record("floor_on_h200", Timing([seconds]), f"{n} images", **told)


GROUPS: dict[str, Callable[[Session], Iterable[Record]]] = {
    "restorations": restorations, "grid": grid, "training": training, "volume": volume, "import": imports,
    "growth": growth, "paper-gpu": on_paper,
}  # fmt: skip
