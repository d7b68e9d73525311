"""Tables as Markdown, and the numbers in their cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.protocol.methods import title

Columns = dict[str, Callable[[str], str]]  # head of a column: the cell of a method


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])


def by_method(methods: Iterable[str], columns: Columns, corner: str = "method") -> str:
    """Return a Markdown table with a line for each method."""
    lines = [[title(method), *(cell(method) for cell in columns.values())] for method in methods]
    return markdown([corner, *columns], lines)


def form(value: str | float | None, spec: str) -> str:
    """Format a number, or the text of one; empty if there is none."""
    return "" if value in (None, "") else f"{float(value):{spec}}"
