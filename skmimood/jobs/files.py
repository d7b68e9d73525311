"""Files of jobs: written whole or not at all, never over an input, safe to show, and known by their bytes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from skmimood.exceptions import InputError, ScanWriteError
from skmimood.runtime.files import replacing
from skmimood.runtime.paths import expand

# Nothing heavy is imported here: the command line needs `printable` and `to_json`.

PathLike = str | os.PathLike[str]

_CHUNK = 2**20
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write(path: Path, content: str | bytes | Iterable[str]) -> None:
    """Replace a file at once, as a whole or not at all; text, in UTF-8, may come in parts.

    If the file cannot be written, `ScanWriteError` is raised and what stood there before is still there.
    """
    with replacing(path) as stream:
        for part in [content] if isinstance(content, str | bytes) else content:
            # File names may hold bytes that are no text at all; they must not stop a job.
            stream.write(part if isinstance(part, bytes) else part.encode("utf-8", "backslashreplace"))


def make_folder(path: Path) -> None:
    """Make a folder and those above it; raise `ScanWriteError` unless files can be written into it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ScanWriteError(f"Cannot write to {str(path)!r}: {reason}. Choose another folder.") from None


def refuse_inputs_within(folder: Path, inputs: Iterable[PathLike]) -> None:
    """Raise `InputError` if one of the inputs is ``folder`` or lies in it."""
    for given in inputs:
        if is_within(given, folder):
            raise InputError(
                f"The output {str(folder)!r} is, or holds, the input {os.fspath(given)!r}. "
                "Choose another output."
            )


def is_within(path: PathLike, folder: PathLike) -> bool:
    """Tell whether ``path`` is ``folder`` or lies below it, links resolved."""
    return Path(os.path.realpath(expand(path))).is_relative_to(os.path.realpath(expand(folder)))


def way_to(path: PathLike, folder: PathLike) -> str:
    """Return the relative path that leads from a folder to a file; the whole path where none does (another drive)."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    try:
        return os.path.relpath(path, folder)
    except ValueError:
        return path


def to_json(content: Any) -> str:
    """Return strict, indented JSON, in which a number that is not finite is null."""

    def finite(part: Any) -> Any:
        if isinstance(part, dict):
            return {str(key): finite(value) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return [finite(value) for value in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(finite(content), indent=1, allow_nan=False) + "\n"


def to_csv(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table of comma-separated values, in which no text is a formula to a spreadsheet; NaN is empty."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_cell, row) for row in rows)
    return table.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        value = "; ".join(value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def printable(text: str) -> str:
    """Return ``text`` on one line, with characters that could steer a terminal escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def digest_of(scan: Any, *masks: str | None) -> str:
    """Return a digest of the bytes of a scan, a path or a tuple of those of its modalities, and of the masks beside it.

    It is empty if one of them cannot be read.

    ``masks`` are endings of names; ``"auto"``, ``"none"``, ``"ct-brain"`` and None stand for no file.
    """
    from skmimood.nifti import files_of, find_companion
    from skmimood.nifti.names import present_parts
    from skmimood.scans.sources import FOREGROUNDS

    named = [mask for mask in masks if mask not in (*FOREGROUNDS, None)]
    digest = hashlib.blake2b(digest_size=16)
    try:
        for path in (*present_parts(scan), *(find_companion(scan, mask) for mask in named)):
            for file in [] if path is None else files_of(path):
                digest.update(_bytes_digest(file))
    except OSError:
        return ""
    return digest.hexdigest()


def _bytes_digest(path: Path) -> bytes:
    if not path.is_file():  # opening a pipe would wait for ever
        raise FileNotFoundError(path)
    digest = hashlib.blake2b()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()
