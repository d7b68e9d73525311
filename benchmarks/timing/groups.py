"""What ``speed`` measures: a session holds what its groups share; each group measures one thing and yields records."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import nibabel as nib
import numpy as np
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks import records
from benchmarks.timing import floor, networks
from benchmarks.timing.networks import MASKED_SHARE, phantoms, set_restoration
from benchmarks.timing.plain_reading import at_precision, plain_maps
from benchmarks.timing.stopwatch import Timing, clock, import_seconds, interleave, measure, resident
from skmimood import restoration_path
from skmimood.runtime.device import resolve_precision

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
_TRAINING_IMAGES = 32
# bfloat16 products as they run there; memory as specified
_H200 = floor.Machine(flops=790e12, bandwidth=4.8e12, itemsize=2)


Record = dict[str, Any]


@dataclass
class Session:
    """What is measured and how much of it, with networks and rates, which are made when first used."""

    preset: str
    device: torch.device
    size: int  # side of the slices
    share: float = MASKED_SHARE  # of the tokens, masked at each step
    images: int = 32  # slices of the restorations
    grid_images: int = 8  # slices of what takes many restorations: grid and growth
    repeats: int = 5  # runs that count, besides a warm-up
    patience: float = 60.0  # seconds beyond which something runs but once
    positions: int = 8  # of the uncached AR restoration that are measured
    train_steps: int = 5  # of a training, besides a warm-up
    volume: tuple[int, int, int] = (240, 240, 155)

    @cached_property
    def mimood(self) -> Pipeline:
        """MIM-OOD as published, with R = 4 and T = 8."""
        return networks.published(self.preset, str(self.device), self.size, self.share)

    @cached_property
    def machine(self) -> floor.Machine:
        """The rates of the device in its precision."""
        return floor.measure_machine(self.device, resolve_precision("auto", self.device))

    @cached_property
    def common(self) -> Record:
        """What all records have in common."""
        told = records.environment(str(self.device))
        kind = "CUDA, allocated" if self.device.type == "cuda" else "growth of resident memory"
        return {
            "preset": self.preset, "image_size": self.size, "memory_kind": kind,
            "precision": str(resolve_precision("auto", self.device)).removeprefix("torch."),
            **{key: told[key] for key in ("device", "threads", "torch", "commit")},
        }  # fmt: skip

    def interleave(
        self, subjects: Mapping[str, Callable[[], Any]], repeats: int | None = None
    ) -> dict[str, Timing]:
        """Time subjects in turn."""
        return interleave(subjects, self.device, repeats=repeats or self.repeats, patience=self.patience)

    def record(
        self, name: str, timing: Timing, per: str, to: str | None = None, timings: Mapping[str, Timing] | None = None,
        **more: Any,
    ) -> Record:  # fmt: skip
        """Return a record of a timing, with its ratio to the one called ``to``."""
        return {
            "name": name, "seconds": timing.seconds, "per": per, "ratio_to": to,
            "ratio": timing.seconds / timings[to].seconds if to and timings else None,
            "peak_memory_bytes": timing.peak_memory,
            "runs": timing.runs, **self.common, **more,
        }  # fmt: skip


def restorations(session: Session) -> Iterator[Record]:
    """Time MIM-OOD, with and without the tokens off the head, its plain reading, and its rivals on the same slices."""
    whole, machine, share = session.mimood, session.machine, session.share
    images = phantoms(session.images, session.size)
    sizes = (session.preset, str(session.device), session.size, share)
    recipe, (critic, autoregressive) = networks.recipe(*sizes), networks.rivals(whole, *sizes)
    ours, exact = networks.without_background(whole), at_precision(whole, "float32")
    kept = networks.share_kept(images, ours["tokenizer"].downsampling)
    n_tokens = int(np.prod(ours["tokenizer"].grid_))
    every = max(1, n_tokens // session.positions)
    uncached = partial(networks.restore_uncached, autoregressive, images, every, session.device)
    timings = session.interleave({
        "mimood_r4_t8": partial(ours.decision_function, images),
        "mimood_whole_grid": partial(whole.decision_function, images),
        "mimood_reference": partial(plain_maps, exact, images),
        "mimood_default": partial(recipe.decision_function, images),
        "ar_r4_uncached": uncached,
        "ar_r4_cached": partial(autoregressive.decision_function, images),
        "token_critic_r4": partial(critic.decision_function, images),
    })  # fmt: skip
    own: dict[str, Record] = {
        "mimood_r4_t8": {
            "floor_seconds": floor.restoration_floor(ours, len(images), machine, share=share, kept=kept),
            "matmul_flops": machine.flops, "memory_bandwidth": machine.bandwidth, "share_of_tokens": kept,
        },
        "mimood_whole_grid": {"floor_seconds": floor.restoration_floor(whole, len(images), machine, share=share)},
        "mimood_reference": {"precision": "float32"},
        "mimood_default": {"n_steps": recipe[-1].n_steps, "n_restorations": recipe[-1].n_restorations},
        "ar_r4_uncached": {"measured_share": len(range(0, n_tokens, every)) / n_tokens},
    }  # fmt: skip
    common = {"images": len(images), "tokens": n_tokens, "masked_share": share}
    for name, timing in timings.items():
        to = None if name == "mimood_r4_t8" else "mimood_r4_t8"
        more = common | own.get(name, {})
        yield session.record(name, timing, f"{len(images)} images", to, timings, **more)


def grid(session: Session) -> Iterator[Record]:
    """Time a grid of 80 candidates one by one, along the path, and the last candidate alone."""
    pipeline, images = session.mimood, phantoms(session.grid_images, session.size)
    thresholds = [1 - share for share in SHARES]

    def separate() -> None:
        for n_steps, n_restorations, share in itertools.product(N_STEPS, N_RESTORATIONS, SHARES):
            set_restoration(pipeline, n_steps, n_restorations, share).decision_function(images)

    def path() -> None:
        axes = {"thresholds": thresholds, "n_steps": N_STEPS, "n_restorations": N_RESTORATIONS}
        for _ in restoration_path(pipeline, images, **axes):
            pass

    def one() -> None:
        set_restoration(pipeline, N_STEPS[-1], N_RESTORATIONS[-1], session.share).decision_function(images)

    timings = session.interleave({"grid_80_separate": separate, "grid_80_path": path, "grid_1": one})
    set_restoration(pipeline, share=session.share)
    for name, to in (("grid_80_separate", "grid_80_path"), ("grid_80_path", "grid_1"), ("grid_1", None)):
        per = f"{len(images)} images"
        yield session.record(name, timings[name], per, to, timings, images=len(images))


def training(session: Session) -> Iterator[Record]:
    """Time steps of the preset's own trainings: of the tokenizer, and of the in-painter for the transformers."""
    tokenizer, inpainter = session.mimood[0], session.mimood[-1]
    images, rate = phantoms(_TRAINING_IMAGES, session.size), session.machine.flops
    n, size = tokenizer.get_params()["training__batch_size"], session.machine.itemsize
    parts = (
        work(tokenizer.config_, tokenizer.grid_, n, size) for work in (floor.encoder_work, floor.decoder_work)
    )
    coded = sum(part.flops for part in parts)
    painted = floor.transformer_work(
        inpainter.config_, inpainter.get_params()["training__batch_size"], size
    ).flops
    for name, estimator, X, forward in (
        ("train_tokenizer_step", tokenizer, images, coded),
        ("train_transformer_step", inpainter, session.mimood[:-1].transform(images), painted),
    ):
        batch = estimator.get_params()["training__batch_size"]
        timing = Timing()
        run = partial(step_seconds, clone(estimator), X, session.train_steps, session.device, timing.runs)
        _, timing.peak_memory = measure(run, session.device)
        flops = 3 * forward / timing.seconds  # forward, and twice as much backward
        yield session.record(
            name, timing, f"step of {batch} images", batch_size=batch, images_per_second=batch / timing.seconds,
            flops=flops, share_of_matmul=flops / rate, matmul_flops=rate,
        )  # fmt: skip


class _EnoughError(Exception):
    """Ends a training that has been timed long enough."""


def step_seconds(estimator: Any, X: Any, n_steps: int, device: torch.device, seconds: list[float]) -> None:
    """Start a fit and note the seconds of its steps, of which the first is not counted; it is not brought to an end."""
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
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        timing = pool.submit(score_volume, dataclasses.replace(session)).result()
    kind: Record = {"memory_kind": "resident, whole process"} if session.device.type == "cpu" else {}
    per = f"volume of {'x'.join(map(str, session.volume))}"
    yield session.record(
        "score_volume", timing, per, images=session.volume[2], masked_share=session.share, **kind
    )


def score_volume(session: Session) -> Timing:
    """Score a volume with R = 4 and T = 8; on a CPU networks, libraries and the short fit are in its memory."""
    detector = networks.scan_detector(session.mimood, session.size)
    image = nib.Nifti1Image(networks.synthetic_head(session.volume), np.eye(4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of thresholds that mean nothing
        seconds, memory = measure(partial(detector.detect_scan, image), session.device)
    return Timing([seconds], resident("VmHWM") if session.device.type == "cpu" else memory)


def imports(session: Session) -> Iterator[Record]:
    """Time ``import skmimood`` in fresh interpreters, without their own start."""
    yield session.record("import", Timing([import_seconds() for _ in range(_IMPORTS)]), "import")


def growth(session: Session) -> Iterator[Record]:
    """Time MIM-OOD along each series, around R = 4, T = 8, 5 % masked, until a point takes more than the patience."""
    for series, values in SERIES.items():
        for value in values:
            n = int(value) if series == "images" else session.grid_images
            share = value if series == "masked share" else MASKED_SHARE
            pipeline, size = session.mimood, session.size
            if series == "image size":
                size = int(value)
                pipeline = networks.published(session.preset, str(session.device), size)
            n_steps, n_chains = (
                int(value) if series == name else usual for name, usual in (("T", 8), ("R", 4))
            )
            set_restoration(pipeline, n_steps, n_chains, share)
            run = partial(pipeline.decision_function, phantoms(n, size))
            timing = session.interleave({series: run}, min(session.repeats, 2))[series]
            least = floor.restoration_floor(pipeline, n, session.machine, share=share)
            set_restoration(pipeline)
            yield session.record(
                f"grow_{series.replace(' ', '_')}", timing, f"{n} images, {series} {value:g}", series=series,
                value=value, images=n, masked_share=share, floor_seconds=least,
            )  # fmt: skip
            if timing.seconds > session.patience:
                break


def on_paper(session: Session) -> Iterator[Record]:
    """Compute what the restorations must take on an NVIDIA H200, whether or not there is one."""
    n, share = session.images, session.share
    seconds = floor.restoration_floor(session.mimood, n, _H200, share=share)
    yield session.record(
        "floor_on_h200", Timing([seconds]), f"{n} images", device="NVIDIA H200, on paper", precision="bfloat16",
        images=n, masked_share=share, matmul_flops=_H200.flops, memory_bandwidth=_H200.bandwidth,
    )  # fmt: skip


GROUPS: dict[str, Callable[[Session], Iterable[Record]]] = {
    "restorations": restorations, "grid": grid, "training": training, "volume": volume, "import": imports,
    "growth": growth, "paper-gpu": on_paper,
}  # fmt: skip
