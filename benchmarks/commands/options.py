"""What the commands share: their options, the names that a user lists, lines that say how far they are."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import records
from benchmarks.data.slices import SliceSet
from benchmarks.data.sources import DATA, open_slices
from benchmarks.protocol import ledger
from skmimood.exceptions import InputError, SkmimoodError
from skmimood.pipeline import PRESET_IMAGE_SIZE

PRESETS = ("tiny", "small", "paper")


def add_data_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add what says which slices are used, by networks of which preset, and where everything is kept."""
    add = parser.add_argument
    add("--data", required=default is None, default=default, choices=DATA)
    add("--preset", default="tiny", choices=PRESETS)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add(
        "--root",
        help="folder of the data set with its splits.csv, or one that holds it as lgg/, ixi/ "
        "(default: $SKMIMOOD_DATA, else ../shared/data)",
    )
    add("--healthy", help="healthy scans to fit on, where splits.csv has no split 'train'")
    add("--modality", help="contrast, where the data set has several (t1, t2, flair, ...)")
    add("--slices", type=Path, metavar="FILE.npz", help="read the slices from this file, or write it")
    add("--cache", type=Path, default=Path("runs/benchmark"), help="keeps slices, networks, outcomes")
    add("--results", type=Path, default=records.RESULTS, help="folder of the tables")
    add("--threads", type=int, help="threads of torch (default: its own choice)")


def slices_of_command(arguments: argparse.Namespace) -> SliceSet:
    """Note the code, set the threads, and open the slices that `add_data_arguments` asked for."""
    ledger.read_code()
    set_threads(arguments.threads)
    return open_slices(
        arguments.data, PRESET_IMAGE_SIZE[arguments.preset], root=arguments.root, healthy=arguments.healthy,
        modality=arguments.modality, cache=arguments.cache, file=arguments.slices,
    )  # fmt: skip


def set_threads(threads: int | None) -> None:
    """Set the threads of torch, if any are asked for."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def told_in_a_line(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Let a command end with one line where the user's input is at fault."""

    def run(arguments: argparse.Namespace) -> None:
        try:
            command(arguments)
        except SkmimoodError as error:
            raise SystemExit(f"error: {error}") from None

    return run


def listed(names: str, known: Iterable[str], what: str, separator: str = ",") -> list[str]:
    """Return the names in a list, in the order of those that are ``known``; all for ``"all"``.

    Raises
    ------
    InputError
        If a name is not known; ``what`` says what they are names of.
    """
    known = list(known)
    wanted = known if names == "all" else [name.strip() for name in names.split(separator)]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"There is no {what} {unknown[0]!r}; there are {f'{separator} '.join(known)}.")
    return [name for name in known if name in wanted]


class Log:
    """Prints lines with the seconds since the last one."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self, line: str) -> None:
        """Print a line."""
        now = time.perf_counter()
        print(f"[{now - self._last:7.1f} s] {line}", flush=True)
        self._last = now
