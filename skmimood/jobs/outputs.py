"""Results on disk: written whole or not at all, never over an input, and safe to show in a terminal."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skmimood.exceptions import InputError, ScanWriteError
from skmimood.runtime.paths import expand

PathLike = str | os.PathLike[str]


def write(path: Path, content: str | bytes | Iterable[str]) -> None:
    """Replace a file at once, so that a reader never sees half of it.

    Text is written in UTF-8; a long one may come in parts, so that it is never held as a whole. If the file cannot be
    written, `ScanWriteError` is raised and what stood there before is still there.
    """
    temporary = _temporary(path.parent)
    try:
        with open(temporary, "xb") as stream:
            for part in [content] if isinstance(content, str | bytes) else content:
                # File names may hold bytes that are no text at all; they must not stop a job.
                stream.write(part if isinstance(part, bytes) else part.encode("utf-8", "backslashreplace"))
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ScanWriteError(f"Cannot write {path.name}: {reason}. Check the folder and its space.") from None
    finally:
        temporary.unlink(missing_ok=True)


def to_json(content: Any) -> str:
    """Return strict, indented JSON, in which a number that is not finite is null."""
    return json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"


def make_folder(path: Path) -> None:
    """Make a folder and those above it, and prove that files can be written into it, or raise `ScanWriteError`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = _temporary(path)
        probe.touch()
        probe.unlink(missing_ok=True)  # another job may have tidied it away
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


def printable(text: str) -> str:
    """Return ``text`` on one line, with characters that could steer a terminal escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _temporary(folder: Path) -> Path:
    return folder / f".skmimood-{secrets.token_hex(8)}.tmp"


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
