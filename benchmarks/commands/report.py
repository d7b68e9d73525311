"""Render the tables and figures of all results into benchmarks/README.md and benchmarks/figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import records
from benchmarks.report import accuracy, domain, headline, speed

README = Path(__file__).parents[1] / "README.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="folder of the tables")
    parser.add_argument(
        "--readme", type=Path, default=README, help="file with the markers; figures go beside it"
    )


def run(arguments: argparse.Namespace) -> None:
    results, readme = arguments.results, arguments.readme
    for part in (accuracy, speed):
        fill(readme, part.render(results, readme.parent), part.START, part.END)
    fill(readme, domain.render(results), domain.START, domain.END)
    if readme == README:
        fill(README.parents[1] / "README.md", headline.headline(results), headline.START, headline.END)


def fill(readme: Path, text: str, first: str, last: str) -> None:
    """Put ``text`` between the two markers of a file; without them, end with an error."""
    before, start, rest = readme.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise SystemExit(
            f"error: {readme} lacks the lines {first} and {last}. Put them where the tables belong."
        )
    readme.write_text(f"{before}{first}\n\n{text.strip()}\n\n{last}{after}", encoding="utf-8")
