"""Render the tables and figures of all results into benchmarks/README.md and benchmarks/figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import records
from benchmarks.report import accuracy, domain, figures, headline, speed

README = Path(__file__).parents[1] / "README.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--results", type=Path, default=records.RESULTS, help="folder of the tables")
    add("--readme", type=Path, default=README, help="file with the markers")
    add("--figures", type=Path, default=README.with_name("figures"), help="folder of the figures")
    add(
        "--cases", type=Path, metavar="FILE.npz",
        help="only draw these cases, which `accuracy` keeps in its cache, beside them: local, never to be published",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    if arguments.cases is not None:
        figures.draw_cases(arguments.cases, arguments.cases.with_suffix(".png"))
        return
    results, readme = arguments.results, arguments.readme
    for part in (accuracy, speed):
        fill(readme, part.render(results, arguments.figures, readme.parent), part.START, part.END)
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
