"""Seconds and memory of MIM-OOD and its rivals at equal settings, in one run: R = 4, T = 8."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import records
from benchmarks.commands.options import PRESETS, Log, listed, set_threads, told_in_a_line
from benchmarks.report.speed import table
from benchmarks.timing.groups import GROUPS
from benchmarks.timing.networks import MASKED_SHARE
from benchmarks.timing.session import Plan, Record, Session
from skmimood.runtime.device import resolve_device

QUICK = Plan(
    images=4, grid_images=1, repeats=1, patience=0.5, positions=2, train_steps=2, volume=(240, 240, 8)
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--preset", default="tiny", choices=PRESETS)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--quick", action="store_true", help="few slices, one run of each: about a minute at preset tiny")
    add("--json", type=Path, metavar="FILE", help="write the records here (default: results/speed_...)")
    add("--groups", default="all", help=f"of {', '.join(GROUPS)}, separated by commas (default: all)")
    add("--size", type=int, help="side of the slices in pixels (default: the preset's)")
    add("--images", type=int, help="slices of a restoration (default: 32)")
    add("--grid-images", type=int, help="slices of grid and growth (default: 8, on CUDA as --images)")
    add("--repeats", type=int, help="runs of each that count (default: 5)")
    add("--patience", type=float, help="seconds beyond which something runs but once (default: 60)")
    add("--masked-share", type=float, default=MASKED_SHARE, help="of the tokens, at each step")
    add("--threads", type=int, help="threads of torch (default: its own choice)")


@told_in_a_line
def run(arguments: argparse.Namespace) -> None:
    names = named_groups(arguments.groups, quick=arguments.quick)
    set_threads(arguments.threads)
    device = resolve_device(arguments.device)
    plan, share, size = plan_of(arguments, device), arguments.masked_share, arguments.size
    session = Session(arguments.preset, device, plan, share=share, size=size)
    file = arguments.json
    if file is None and not arguments.quick:
        suffix = f"_{size}" if size else ""
        file = records.RESULTS / f"speed_{arguments.preset}{suffix}_{device.type}.json"
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


def replace_records(file: Path, new: Sequence[Record]) -> None:
    """Write records into a JSON list in place of those of the same names."""
    names = {record["name"] for record in new}
    kept = [record for record in records.read_json(file, []) if record["name"] not in names]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([*kept, *new], indent=1) + "\n")
