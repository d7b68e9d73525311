"""``python -m benchmarks COMMAND --help`` tells about each command."""

from __future__ import annotations

import argparse

from benchmarks.commands import (
    ablation,
    accuracy,
    calibration,
    ct,
    domain,
    healing,
    ixi,
    pareto,
    report,
    scaling,
    speed,
    volume,
)  # fmt: skip
from skmimood.exceptions import SkmimoodError

COMMANDS = {
    "accuracy": accuracy, "healing": healing, "ct": ct, "calibration": calibration,
    "ablation": ablation, "speed": speed, "pareto": pareto,
    "scaling": scaling, "report": report, "domain": domain, "ixi": ixi, "volume": volume,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=module.__doc__, description=module.__doc__))
    arguments = parser.parse_args()
    try:
        COMMANDS[arguments.command].run(arguments)
    except SkmimoodError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
