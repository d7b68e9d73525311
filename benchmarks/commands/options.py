"""What the commands share: their options, the names that a user lists, lines that say how far they are."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks import records
from benchmarks.data.slices import SliceSet
from benchmarks.data.sources import DATA, open_slices
from benchmarks.protocol import ledger
from skmimood.exceptions import InputError
from skmimood.pipeline import PRESET_IMAGE_SIZE


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the size of the networks, and where the figures go."""
    parser.add_argument("--preset", default="tiny", choices=("tiny", "small", "paper"))
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="folder of the results")


def add_data_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add what says which slices are used, by networks of which preset, and where everything is kept."""
    parser.add_argument("--data", required=default is None, default=default, choices=DATA)
    parser.add_argument("--healthy", help="healthy scans to fit on, where splits.csv has no split 'train'")
    parser.add_argument("--modality", help="contrast, where the data set has several (t1, t2, flair, ...)")
    add_slices_arguments(parser)


def add_slices_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the slices of a data set come from, networks of which preset see them, and where all is kept."""
    add_common_arguments(parser)
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add(
        "--root",
        help="folder of the data set, or one that holds it (default: $SKMIMOOD_DATA, else ../shared/data)",
    )
    add("--slices", type=Path, metavar="FILE.npz", help="read the slices from this file, or write it")
    add("--cache", type=Path, default=Path("runs/benchmark"), help="keeps slices, networks, outcomes")
    add("--threads", type=int, help="threads of torch (default: its own choice)")


def slices_of_command(arguments: argparse.Namespace) -> SliceSet:
    """Note the code as it is now, set the threads, and open the slices that `add_data_arguments` asked for."""
    ledger.read_code()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return open_slices(
        arguments.data, PRESET_IMAGE_SIZE[arguments.preset], root=arguments.root, healthy=arguments.healthy,
        modality=arguments.modality, cache=arguments.cache, file=arguments.slices,
        pooled=getattr(arguments, "folds", None) is not None,
    )  # fmt: skip


def listed(names: str, known: Iterable[str], what: str, separator: str = ",") -> list[str]:
    """Return the names in a list, in the order of those that are ``known``; all for ``"all"``."""
    known = list(known)
    wanted = known if names == "all" else [name.strip() for name in names.split(separator)]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"There is no {what} {unknown[0]!r}; there are {f'{separator} '.join(known)}.")
    return [name for name in known if name in wanted]


def say(line: str) -> None:
    """Print a line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
