"""Render the tables and figures of all results into benchmarks/README.md and benchmarks/figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import records
from benchmarks.report import accuracy, calibration, ct, domain, headline, healing, speed
from skmimood.exceptions import InputError

README = Path(__file__).parents[1] / "README.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="folder of the tables")
    parser.add_argument(
        "--readme", type=Path, default=README, help="file with the markers; figures go beside it"
    )


def run(arguments: argparse.Namespace) -> None:
    results, readme = arguments.results, arguments.readme
    fill(readme, "accuracy", accuracy.render(results, readme.parent))
    fill(readme, "healing", healing.render(results, readme.parent))
    fill(readme, "ct", ct.render(results))
    fill(readme, "speed", speed.render(results, readme.parent))
    fill(readme, "calibration", calibration.render(results, readme.parent))
    fill(readme, "domain", domain.render(results))
    if readme == README:
        fill(README.parents[1] / "README.md", "figures", headline.headline(results))


def fill(readme: Path, name: str, text: str) -> None:
    """Put ``text`` between the two markers of that name in a file; without them, end with an error."""
    first, last = (f"<!-- {name}:{end} -->" for end in ("start", "end"))
    before, start, rest = readme.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise InputError(f"{readme} lacks the lines {first} and {last}. Put them where the tables belong.")
    readme.write_text(f"{before}{first}\n\n{text.strip()}\n\n{last}{after}", encoding="utf-8")
