"""What tells one scan file or one model from another, wherever it lies and whatever it is called."""

from __future__ import annotations

import hashlib
from pathlib import Path

from skmimood.nifti import find_companion

MANIFEST = "manifest.json"
_CHUNK = 2**20


def digest_of(scan: Path, *masks: str | None) -> str:
    """Return a digest of the bytes of a scan and of the masks beside it; empty if one of them cannot be read.

    ``masks`` are endings of names; ``"auto"``, ``"none"`` and None stand for no file.
    """
    named = [mask for mask in masks if mask not in ("auto", "none", None)]
    digest = hashlib.blake2b(digest_size=16)
    try:
        for path in (scan, *(find_companion(scan, mask) for mask in named)):
            digest.update(b"" if path is None else _bytes_digest(path))
    except OSError:
        return ""
    return digest.hexdigest()


def fingerprint(model: Path) -> str:
    """Return a digest of a saved model; its manifest carries a checksum of the networks too."""
    return hashlib.sha256((model / MANIFEST).read_bytes()).hexdigest()[:16]


def _bytes_digest(path: Path) -> bytes:
    if not path.is_file():  # opening a pipe would wait for ever
        raise FileNotFoundError(path)
    digest = hashlib.blake2b()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()
