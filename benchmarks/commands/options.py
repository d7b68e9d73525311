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
from benchmarks.protocol.methods import METHODS
from skmimood.exceptions import InputError, SkmimoodError

PRESETS = ("tiny", "small", "paper")


def add_data_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add what says which slices are used, by networks of which preset, and where everything is kept."""
    parser.add_argument("--data", required=default is None, default=default, choices=DATA)
    parser.add_argument("--preset", default="tiny", choices=PRESETS)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--root",
        help="folder of the data set with its splits.csv, or one that holds it as lgg/, ixi/ "
        "(default: $SKMIMOOD_DATA, else ../shared/data)",
    )
    parser.add_argument("--healthy", help="healthy scans to fit on, where splits.csv has no split 'train'")
    parser.add_argument("--modality", help="contrast, where the data set has several (t1, t2, flair, ...)")
    parser.add_argument(
        "--slices", type=Path, metavar="FILE.npz", help="read the slices from this file, or write it"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/benchmark"), help="keeps slices, networks, outcomes"
    )
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="folder of the tables")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")


def told_in_a_line(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Let a command end with one line where the user's input is at fault."""

    def run(arguments: argparse.Namespace) -> None:
        try:
            command(arguments)
        except SkmimoodError as error:
            raise SystemExit(f"error: {error}") from None

    return run


def slices_of_command(arguments: argparse.Namespace) -> SliceSet:
    """Note the code, set the threads, and open the slices that `add_data_arguments` asked for."""
    from skmimood.pipeline import PRESET_IMAGE_SIZE

    ledger.read_code()
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    return open_slices(
        arguments.data, PRESET_IMAGE_SIZE[arguments.preset], root=arguments.root, healthy=arguments.healthy,
        modality=arguments.modality, cache=arguments.cache, file=arguments.slices,
    )  # fmt: skip


class Log:
    """Prints lines with the seconds since the last one."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self, line: str) -> None:
        """Print a line."""
        now = time.perf_counter()
        print(f"[{now - self._last:7.1f} s] {line}", flush=True)
        self._last = now


def listed(names: str, known: Iterable[str], what: str, separator: str = ",") -> list[str]:
    """Return the names in a list; all that are known for ``"all"``.

    Parameters
    ----------
    names : str
        Separated by ``separator``.
    known : iterable of str
    what : str
        What they are names of, for the error.
    separator : str, default=","

    Raises
    ------
    InputError
        If a name is not known.
    """
    known = list(known)
    wanted = known if names == "all" else [name.strip() for name in names.split(separator)]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"There is no {what} {unknown[0]!r}; there are {f'{separator} '.join(known)}.")
    return wanted


def named_methods(names: str) -> list[str]:
    """Return the names in a comma-separated list, in the order of the registry; all for ``"all"``."""
    wanted = listed(names, METHODS, "method")
    return [name for name in METHODS if name in wanted]
