"""Paths as a user writes them."""

from __future__ import annotations

import os
from pathlib import Path

from skmimood.exceptions import InputError


def expand(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder in place of a leading ``~`` or ``~user``.

    Raise `InputError` if there is no such user, the path is empty, as an unset variable leaves it, or it holds a NUL
    character.
    """
    text = os.fspath(path)
    if text == "":
        raise InputError(
            "A path is empty text. Name the file or folder, or write '.' for the folder you are in."
        )
    if "\0" in text:
        raise InputError(
            f"{text!r} holds a NUL character, which no path can. Check where the path comes from."
        )
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0]
        raise InputError(
            f"{text!r}: {user!r} is no home folder that is known here. Write the path in full, or "
            f"'./{user}' for a folder of that name."
        ) from None
