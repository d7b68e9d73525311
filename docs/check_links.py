"""Check that every link within built pages leads to a page and an anchor that are there: `make docs`."""

from __future__ import annotations

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Collects the anchors and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str | None] = {"", "top"}
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take what a tag is called by and leads to."""
        for name, value in attrs:
            if name in ("id", "name"):
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.add(value)


@cache
def read(path: Path) -> Page:
    """Return a page, parsed once."""
    return Page(path.read_text(encoding="utf-8"))


def broken_links(page: Path) -> list[str]:
    """Return the links of a page, but for those to other sites, that lead nowhere."""
    broken = []
    for link in sorted(read(page).links):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        is_there = target.is_file()
        if is_there and target.suffix == ".html":
            is_there = unquote(parts.fragment) in read(target).anchors
        if not is_there:
            broken.append(f"{page}: {link}")
    return broken


if __name__ == "__main__":
    root = Path(sys.argv[1]).resolve()
    pages = sorted(set(root.rglob("*.html")) - set((root / "_static").rglob("*.html")))
    found = [link for page in pages for link in broken_links(page)]
    print(*found, f"{len(pages)} pages, {len(found)} broken links", sep="\n")
    sys.exit(bool(found) or not pages)
