"""Seconds and memory of MIM-OOD and its rivals at equal settings, in one run: R = 4, T = 8."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.commands.options import add_common_arguments, listed, say
from benchmarks.report.speed import table
from benchmarks.timing.groups import GROUPS, Record, Session
from benchmarks.timing.networks import MASKED_SHARE
from skmimood.pipeline import PRESET_IMAGE_SIZE
from skmimood.runtime.device import resolve_device

_QUICK: dict[str, Any] = {
    "images": 4, "grid_images": 1, "repeats": 1, "patience": 0.5, "positions": 2, "train_steps": 2,
    "volume": (240, 240, 8),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser)
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--quick", action="store_true", help="few slices, one run of each; writes nothing")
    add("--groups", default="all", help=f"of {', '.join(GROUPS)}, separated by commas (default: all)")
    add("--size", type=int, help="side of the slices in pixels (default: the preset's)")
    add("--images", type=int, help="slices of a restoration (default: 32)")
    add("--patience", type=float, help="seconds beyond which something runs but once (default: 60)")
    add("--masked-share", type=float, default=MASKED_SHARE, help="of the tokens, at each step")


def run(arguments: argparse.Namespace) -> None:
    names = listed(arguments.groups, GROUPS, "group")
    if arguments.quick and arguments.groups == "all":
        names.remove("growth")  # takes too long
    device = resolve_device(arguments.device)
    plan = dict(_QUICK) if arguments.quick else {}
    plan |= {
        name: value for name in ("images", "patience") if (value := getattr(arguments, name)) is not None
    }
    size = arguments.size or PRESET_IMAGE_SIZE[arguments.preset]
    session = Session(arguments.preset, device, size, arguments.masked_share, **plan)
    if device.type == "cuda" and not arguments.quick:
        session.grid_images = session.images  # a few slices would not fill it
    suffix = f"_{arguments.size}" if arguments.size else ""
    file = arguments.results / f"speed_{arguments.preset}{suffix}_{device.type}.json"
    for name in names:
        measured = list(GROUPS[name](session))
        say(name)
        print(table(measured), flush=True)
        if not arguments.quick:
            replace_records(file, measured)


def replace_records(file: Path, new: Sequence[Record]) -> None:
    """Write records into a JSON list in place of those of the same names."""
    names = {record["name"] for record in new}
    kept = [record for record in records.read_json(file, []) if record["name"] not in names]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([*kept, *new], indent=1) + "\n")
