"""What tells one file of a scan from another, wherever it lies and whatever it is called."""

from __future__ import annotations

import hashlib
from pathlib import Path

from skmimood.nifti import find_companion

_CHUNK = 2**20


def digest_of(scan: Path, *masks: str | None) -> str:
    """Return a digest of the bytes of a scan and of masks beside it.

    Parameters
    ----------
    scan : Path
    masks : str or None
        Endings of mask names, or ``"auto"``, ``"none"`` and None for no file.

    Returns
    -------
    str
        Empty if one of them cannot be read.
    """
    named = [mask for mask in masks if mask not in ("auto", "none", None)]
    digest = hashlib.blake2b(digest_size=16)
    try:
        for path in (scan, *(find_companion(scan, mask) for mask in named)):
            digest.update(b"" if path is None else _bytes_digest(path))
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
