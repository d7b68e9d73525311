"""Files that are written as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skmimood.exceptions import ScanWriteError


def temporary_in(folder: Path) -> Path:
    """Return the path of a new file, whose name tells a later job what one that was ended by force has left."""
    return folder / f".skmimood-{secrets.token_hex(8)}.tmp"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Any]:
    """Open a stream whose content takes the place of a file at the end.

    If it cannot be written, `ScanWriteError` is raised, and what stood there before is still there.
    """
    temporary = temporary_in(path.parent)
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ScanWriteError(f"Cannot write {path.name}: {reason}. Check the folder and its space.") from None
    finally:
        temporary.unlink(missing_ok=True)
