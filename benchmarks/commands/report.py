"""Render the tables and figures of all results into benchmarks/README.md and benchmarks/figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import records
from benchmarks.report import accuracy, domain, figures, headline, speed
from benchmarks.report.results import DATA_TITLES, load_runs

README = Path(__file__).parents[1] / "README.md"
FIGURES = Path(__file__).parents[1] / "figures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="folder of the tables")
    parser.add_argument("--readme", type=Path, default=README, help="file with the markers")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the figures")
    parser.add_argument(
        "--cases", type=Path, metavar="FILE.npz",
        help="only draw these cases, which `accuracy` keeps in its cache, beside them: local, never to be published",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    if arguments.cases is not None:
        figures.draw_cases(arguments.cases, arguments.cases.with_suffix(".png"))
        return
    text = accuracy.render(arguments.results, arguments.figures, arguments.readme.parent)
    fill(arguments.readme, text, accuracy.START, accuracy.END)
    speed_text = speed.render(arguments.results, arguments.figures, arguments.readme.parent)
    fill(arguments.readme, speed_text, speed.START, speed.END)
    fill(arguments.readme, domain.render(arguments.results), domain.START, domain.END)
    if arguments.readme == README:
        shown = headline.headline(arguments.results, load_runs(arguments.results), DATA_TITLES)
        fill(README.parents[1] / "README.md", shown, headline.START, headline.END)


def fill(readme: Path, text: str, first: str, last: str) -> None:
    """Put ``text`` between the two markers of a file.

    Raises
    ------
    SystemExit
        If they are not there.
    """
    before, start, rest = readme.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise SystemExit(
            f"error: {readme} lacks the lines {first} and {last}. Put them where the tables belong."
        )
    readme.write_text(f"{before}{first}\n\n{text.strip()}\n\n{last}{after}", encoding="utf-8")
