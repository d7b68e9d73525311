"""The documentation names what the package has; `make docs` builds it."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

spec = importlib.util.spec_from_file_location("check_links", DOCS / "check_links.py")
check_links = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_links)


def test_programs_that_are_named_exist():
    text = "".join(path.read_text() for path in (ROOT / "README.md", *DOCS.glob("*.md"), *DOCS.glob("*.rst")))
    named = set(re.findall(r"examples/([\w/]+plot_\w+)", text))
    assert len(named) > 5
    assert not [name for name in named if not (ROOT / "examples" / f"{name}.py").is_file()]


def test_a_link_to_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="here"></h1><a href="b.html#there">b</a><a href="#here">here</a>'
    )
    (tmp_path / "b.html").write_text(
        '<h1 id="there"></h1><a href="a.html#gone"></a><a href="https://x.org/#y"></a>'
    )
    assert check_links.broken_links(tmp_path / "a.html") == []
    assert check_links.broken_links(tmp_path / "b.html") == [f"{tmp_path / 'b.html'}: a.html#gone"]
