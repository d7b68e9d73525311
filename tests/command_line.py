"""How tests run the command line and read what it has written."""

import csv
import json
import re

from skmimood.cli import main


def run(*arguments):
    return main([str(argument) for argument in arguments])


def rows(folder):
    with open(folder / "scores.csv", newline="", encoding="utf-8") as stream:
        return {row["id"]: row for row in csv.DictReader(stream)}


def status(folder):
    return json.loads((folder / "status.json").read_text())


def content(folder):
    """Return every file below a folder with its bytes and time."""
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


def assert_mistake(capsys, *arguments, says):
    assert run(*arguments) == 2
    errors = capsys.readouterr().err
    assert re.search(says, errors)
    assert errors.startswith("skmimood: error: ")
    assert errors.count("\n") == 1
    assert "Traceback" not in errors
