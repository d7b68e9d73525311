"""Tables as Markdown, and the numbers in their cells."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])


def form(value: str | float | None, spec: str) -> str:
    """Format a number, or the text of one; empty if there is none."""
    return "" if value in (None, "") else f"{float(value):{spec}}"
