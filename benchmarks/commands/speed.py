"""Seconds and memory of MIM-OOD and its rivals at equal settings, in one run: R = 4, T = 8."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks import records
from benchmarks.commands.options import PRESETS, Log, listed, told_in_a_line
from benchmarks.commands.volume import import_seconds, synthetic_head
from benchmarks.report.speed import table
from benchmarks.timing import growth, untrained
from benchmarks.timing.floor import (
    Machine,
    Work,
    decoder_work,
    encoder_work,
    measure_machine,
    restoration_floor,
    training_flops,
    transformer_work,
)
from benchmarks.timing.plain_reading import at_precision, plain_maps
from benchmarks.timing.stopwatch import (
    Subject,
    Timing,
    clock,
    interleave,
    maps_of,
    measure,
    memory_kind,
    peak_resident,
)
from benchmarks.timing.untrained import set_restoration
from skmimood import VQTokenizer
from skmimood.pipeline import PRESET_IMAGE_SIZE
from skmimood.runtime.device import resolve_device, resolve_precision

N_STEPS, N_RESTORATIONS = (1, 2, 4, 8), (1, 2, 3, 4)
SHARES = (0.02, 0.035, 0.05, 0.075, 0.1)  # masked by the five lambdas of the grid
_IMPORTS = 5
_ROUNDING, _DECIDED_BY_ROUNDING = 1e-2, 1e-2  # of the largest map value; share of the pixels beyond it
_TRAINING_IMAGES = 32
_H200 = Machine(
    flops=790e12, bandwidth=4.8e12, itemsize=2
)  # bfloat16 products as they run there; memory as specified

Record = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes
    ----------
    images, grid_images : int
        Slices of the restorations, and of what takes many of them: grid and growth.
    repeats : int
        Runs that count, besides a warm-up.
    patience : float
        Seconds; see `interleave`.
    positions : int
        Of the uncached AR restoration that are measured.
    train_steps : int
        Steps of a training that are measured, besides a warm-up.
    volume : tuple of int
        Shape of the volume.
    """

    images: int = 32
    grid_images: int = 8
    repeats: int = 5
    patience: float = 60.0
    positions: int = 8
    train_steps: int = 5
    volume: tuple[int, int, int] = (240, 240, 155)


QUICK = Plan(
    images=4, grid_images=1, repeats=1, patience=0.5, positions=2, train_steps=2, volume=(240, 240, 8)
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="tiny", choices=PRESETS)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--quick", action="store_true", help="few slices, one run of each: about a minute at preset tiny"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the records here (default: results/speed_...)"
    )
    parser.add_argument(
        "--groups", default="all", help=f"of {', '.join(GROUPS)}, separated by commas (default: all)"
    )
    parser.add_argument("--size", type=int, help="side of the slices in pixels (default: the preset's)")
    parser.add_argument("--images", type=int, help="slices of a restoration (default: 32)")
    parser.add_argument(
        "--grid-images", type=int, help="slices of grid and growth (default: 8, on CUDA as --images)"
    )
    parser.add_argument("--repeats", type=int, help="runs of each that count (default: 5)")
    parser.add_argument(
        "--patience", type=float, help="seconds beyond which something runs but once (default: 60)"
    )
    parser.add_argument(
        "--masked-share", type=float, default=untrained.MASKED_SHARE, help="of the tokens, at each step"
    )
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")


@told_in_a_line
def run(arguments: argparse.Namespace) -> None:
    names = named_groups(arguments.groups, quick=arguments.quick)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    session = Session(
        arguments.preset,
        device,
        plan_of(arguments, device),
        share=arguments.masked_share,
        size=arguments.size,
    )
    file = arguments.json
    if file is None and not arguments.quick:
        size = f"_{arguments.size}" if arguments.size else ""
        file = records.RESULTS / f"speed_{arguments.preset}{size}_{device.type}.json"
    say = Log()
    for name in names:
        measured = [session.common | record for record in GROUPS[name](session)]
        say(name)
        print(table(measured), flush=True)
        if file is not None:
            replace_records(file, measured)


def plan_of(arguments: argparse.Namespace, device: torch.device) -> Plan:
    """Return how much to measure: what was asked for, else the default."""
    plan = QUICK if arguments.quick else Plan()
    asked = {name: getattr(arguments, name) for name in ("images", "grid_images", "repeats", "patience")}
    if asked["grid_images"] is None and device.type == "cuda" and not arguments.quick:
        asked["grid_images"] = asked["images"] or plan.images  # a few slices would not fill it
    return Plan(**vars(plan) | {name: value for name, value in asked.items() if value is not None})


def named_groups(names: str, *, quick: bool = False) -> list[str]:
    """Return the names in a comma-separated list; all for ``"all"``, without the growth if it is to be quick."""
    left_out = ["growth"] if quick and names == "all" else []
    return [name for name in listed(names, GROUPS, "group") if name not in left_out]


class Session:
    """What the groups share: networks, the device and its rates, and how much is measured.

    Parameters
    ----------
    preset : str
    device : torch.device
    plan : Plan
    share : float
        Of the tokens that are masked at each step.
    size : int, optional
        Side of the slices, by default the preset's.
    """

    def __init__(
        self, preset: str, device: torch.device, plan: Plan, *, share: float = untrained.MASKED_SHARE,
        size: int | None = None,
    ) -> None:  # fmt: skip
        self.preset, self.device, self.plan, self.share = preset, device, plan, share
        self.size = size or PRESET_IMAGE_SIZE[preset]

    @cached_property
    def networks(self) -> untrained.Networks:
        """The networks, fitted when first used."""
        return untrained.build(self.preset, str(self.device), size=self.size, share=self.share)

    @cached_property
    def dtype(self) -> torch.dtype:
        """What the transformers compute in."""
        return resolve_precision("auto", self.device)

    @cached_property
    def machine(self) -> Machine:
        """The rates of the device in that precision."""
        return measure_machine(self.device, self.dtype)

    def images(self, n: int) -> np.ndarray:
        """Return n slices."""
        return untrained.phantoms(n, self.size)

    def interleave(self, subjects: Sequence[Subject]) -> dict[str, Timing]:
        """Time subjects as the plan says."""
        return interleave(subjects, self.device, repeats=self.plan.repeats, patience=self.plan.patience)

    @cached_property
    def common(self) -> Record:
        """What all records have in common."""
        told = records.environment(str(self.device))
        return {
            "preset": self.preset, "image_size": self.size,
            "precision": str(self.dtype).removeprefix("torch."), "memory_kind": memory_kind(self.device),
            **{key: told[key] for key in ("device", "threads", "torch", "commit")},
        }  # fmt: skip


def record(
    name: str,
    timing: Timing,
    per: str,
    *,
    to: str | None = None,
    timings: dict[str, Timing] | None = None,
    **more: Any,
) -> Record:
    """Return a record of a timing, with its ratio to another one of the same run."""
    return {
        "name": name, "seconds": timing.seconds, "per": per, "ratio_to": to,
        "ratio": timing.seconds / timings[to].seconds if to and timings else None,
        "peak_memory_bytes": timing.peak_memory, "runs": timing.runs, **more,
    }  # fmt: skip


def restorations(session: Session) -> Iterator[Record]:
    """Time MIM-OOD, with and without the tokens off the head, its plain reading, and its rivals on the same slices."""
    networks, plan = session.networks, session.plan
    images = session.images(plan.images)
    n_tokens = int(np.prod(networks.mimood["tokenizer"].grid_))
    uncached = untrained.share_of_positions(networks.autoregressive, plan.positions)

    def run_uncached() -> float:
        uncached.decision_function(images)
        return uncached["restorer"].seconds_left_out()

    ours, exact = untrained.without_background(networks.mimood), at_precision(networks.mimood, "float32")
    kept = untrained.share_kept(images, ours["tokenizer"].downsampling)

    def reference() -> None:
        plain_maps(exact, images)

    timings = session.interleave([
        maps_of("mimood_r4_t8", ours, images),
        maps_of("mimood_whole_grid", networks.mimood, images),
        Subject("mimood_reference", reference),
        maps_of("mimood_default", networks.recipe, images),
        Subject("ar_r4_uncached", run_uncached),
        maps_of("ar_r4_cached", networks.autoregressive, images),
        maps_of("token_critic_r4", networks.critic, images),
    ])  # fmt: skip
    recipe = networks.recipe[-1]
    own: dict[str, Record] = {
        "mimood_r4_t8": {
            "floor_seconds": restoration_floor(ours, len(images), session.machine, share=session.share, kept=kept),
            "matmul_flops": session.machine.flops, "memory_bandwidth": session.machine.bandwidth,
            "share_of_tokens": kept,
        },
        "mimood_whole_grid": {
            "floor_seconds": restoration_floor(networks.mimood, len(images), session.machine, share=session.share),
        },
        "mimood_reference": {"precision": "float32"},
        "mimood_default": {"n_steps": recipe.n_steps, "n_restorations": recipe.n_restorations},
        "ar_r4_uncached": {"measured_share": uncached["restorer"].measured_share},
    }  # fmt: skip
    common = {"images": len(images), "tokens": n_tokens, "masked_share": session.share}
    for name, timing in timings.items():
        to = None if name == "mimood_r4_t8" else "mimood_r4_t8"
        yield record(
            name, timing, f"{len(images)} images", to=to, timings=timings, **common, **own.get(name, {})
        )


def grid(session: Session) -> Iterator[Record]:
    """Time a grid of 80 candidates one by one, along the path, and the last candidate alone."""
    from skmimood import restoration_path

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

    timings = session.interleave([
        Subject("grid_80_separate", separate), Subject("grid_80_path", path), Subject("grid_1", one),
    ])  # fmt: skip
    set_restoration(pipeline, share=session.share)
    is_equal = separately.keys() == along_path.keys() and all(
        _are_same(maps, along_path[candidate]) for candidate, maps in separately.items()
    )
    equal = {"equal_maps": is_equal, "images": len(images)}
    for name, to in (("grid_80_separate", "grid_80_path"), ("grid_80_path", "grid_1"), ("grid_1", None)):
        yield record(name, timings[name], f"{len(images)} images", to=to, timings=timings, **equal)


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
    steps: dict[str, tuple[Any, Any, Callable[[int], Work]]] = {
        "train_tokenizer_step": (clone(tokenizer), images, lambda n: _tokenizer_work(tokenizer, n, size)),
        "train_transformer_step": (
            clone(inpainter), fitted[:-1].transform(images),
            lambda n: transformer_work(inpainter.config_, n, size),
        ),
    }  # fmt: skip
    for name, (estimator, X, forward) in steps.items():
        batch, timing = estimator.batch_size, _time_steps(estimator, X, session)
        rate = training_flops(forward(batch)) / timing.seconds
        yield record(
            name, timing, f"step of {batch} images", batch_size=batch, images_per_second=batch / timing.seconds,
            flops=rate, share_of_matmul=rate / session.machine.flops, matmul_flops=session.machine.flops,
        )  # fmt: skip


def _tokenizer_work(tokenizer: VQTokenizer, n: int, itemsize: int) -> Work:
    config, grid = tokenizer.config_, tokenizer.grid_
    return encoder_work(config, grid, n, itemsize) + decoder_work(config, grid, n, itemsize)


def _time_steps(estimator: Any, X: Any, session: Session) -> Timing:
    timing = Timing()

    def run() -> None:
        timing.runs = step_seconds(estimator, X, session.plan.train_steps, session.device)

    _, timing.peak_memory = measure(run, session.device)
    return timing


class _EnoughError(Exception):
    """Ends a training that has been timed long enough."""


def step_seconds(estimator: Any, X: Any, n_steps: int, device: torch.device) -> list[float]:
    """Start a fit and return the seconds of its steps, of which the first is not counted; it is not brought to an end.

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
    return [float(seconds) for seconds in np.diff(ticks)]


def volume(session: Session) -> Iterator[Record]:
    """Score a synthetic volume in a process of its own, whose peak memory tells of nothing else."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        told = pool.submit(
            score_volume, session.preset, str(session.device), session.plan.volume, session.size, session.share,
            torch.get_num_threads(),
        ).result()  # fmt: skip
    shape = "x".join(map(str, session.plan.volume))
    timing = Timing([told["seconds"]], told["peak_memory_bytes"])
    yield record(
        "score_volume", timing, f"volume of {shape}", images=told["images"], memory_kind=told["memory_kind"],
        masked_share=session.share,
    )  # fmt: skip


def score_volume(
    preset: str, device: str, shape: tuple[int, int, int], size: int, share: float, threads: int
) -> Record:
    """Score a volume with R = 4 and T = 8; return seconds, slices, and the peak memory of the whole process."""
    import nibabel

    torch.set_num_threads(threads)
    networks = untrained.build(preset, device, size=size, share=share, with_rivals=False)
    detector = untrained.scan_detector(networks.mimood, networks.size)
    image = nibabel.Nifti1Image(synthetic_head(shape), np.eye(4))

    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of thresholds that mean nothing
            detector.detect_scan(image)

    where = resolve_device(device)
    seconds, memory = measure(run, where)
    kind = memory_kind(where)
    if where.type == "cpu":
        # Networks, libraries and the short fit are in it.
        memory, kind = peak_resident(), "resident, whole process"
    return {"seconds": seconds, "peak_memory_bytes": memory, "memory_kind": kind, "images": shape[2]}


def imports(session: Session) -> Iterator[Record]:
    """Time ``import skmimood`` in fresh interpreters, without their own start."""
    yield record("import", Timing([import_seconds() for _ in range(_IMPORTS)]), "import")


def grown(session: Session) -> Iterator[Record]:
    """Time the restoration along series of images, T, R, image sizes and masked shares."""
    plan = session.plan
    points = growth.grow(
        session.networks, session.preset, session.device, session.machine, n_images=plan.grid_images,
        repeats=min(plan.repeats, 2), patience=plan.patience,
    )  # fmt: skip
    for point in points:
        per = f"{point['images']} images, {point['series']} {point['value']:g}"
        yield {
            "name": f"grow_{point['series'].replace(' ', '_')}",
            "per": per,
            "ratio_to": None,
            "ratio": None,
            **point,
        }


def on_paper(session: Session) -> Iterator[Record]:
    """Compute what the restorations must take on an NVIDIA H200, whether or not there is one."""
    networks, n = session.networks, session.plan.images
    seconds = restoration_floor(networks.mimood, n, _H200, share=session.share)
    told: Record = {
        "device": "NVIDIA H200, on paper", "precision": "bfloat16", "images": n, "masked_share": session.share,
        "matmul_flops": _H200.flops, "memory_bandwidth": _H200.bandwidth,
    }  # fmt: skip
    yield record("floor_on_h200", Timing([seconds]), f"{n} images", **told)


GROUPS: dict[str, Callable[[Session], Iterable[Record]]] = {
    "restorations": restorations,
    "grid": grid,
    "training": training,
    "volume": volume,
    "import": imports,
    "growth": grown,
    "paper-gpu": on_paper,
}


def replace_records(file: Path, new: Sequence[Record]) -> None:
    """Write records into a JSON list in place of those of the same names."""
    names = {record["name"] for record in new}
    kept = [record for record in _read(file) if record["name"] not in names]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([*kept, *new], indent=1) + "\n")


def _read(file: Path) -> list[Record]:
    return json.loads(file.read_text()) if file.exists() else []
