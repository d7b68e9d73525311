"""A training that is not finished: what it has learned lies beside its model, with the settings it was begun with."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from skmimood.exceptions import InputError, listing
from skmimood.jobs.locks import claimed
from skmimood.jobs.outputs import make_folder, to_json, write

_SETTINGS = "fit.json"
_NAME_LENGTH = 200


def folder_of(output: Path) -> Path:
    """Return the hidden folder beside a model in which its training keeps what it has learned so far."""
    return output.parent / f".{output.name[:_NAME_LENGTH]}.checkpoints"


@contextlib.contextmanager
def begun(
    output: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool, say: Callable[[str], None]
) -> Iterator[None]:
    """Hold the folder of an unfinished training while it goes on; it is removed if nothing is raised.

    ``settings`` are what the training depends on, None for a default; "scans" maps the id of each scan to a digest.
    With ``resume`` it goes on with what lies there, if that was begun with the same settings. Without it, ``overwrite``
    replaces what lies there, which comes back if this training ends before it has learned anything.
    """
    folder = folder_of(output)
    earlier = folder.with_name(f"{folder.name}.earlier")
    make_folder(output.parent)
    lock = folder.with_suffix(".lock")
    with claimed(lock, wait=False) as is_ours:
        if not is_ours:
            raise InputError(
                f"Another fit of {output.name!r} is at work and holds {lock.name!r}. Wait for its end, or choose "
                "another output."
            )
        _settle(folder, earlier)  # if the last one was killed
        is_there = folder.is_dir() and any(folder.iterdir())
        if resume and is_there:
            say(_resumed(folder, output, settings))
        elif resume:
            say("There is nothing to resume: all is trained anew.")
        elif is_there and not overwrite:
            raise InputError(
                f"An unfinished training of {output.name!r} lies in {folder.name!r}. Add --resume to "
                "finish it, or --overwrite to start anew."
            )
        elif is_there:
            folder.rename(earlier)
        make_folder(folder)
        try:
            write(folder / _SETTINGS, to_json(settings))
            yield
            shutil.rmtree(earlier, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            _settle(folder, earlier)


def _settle(folder: Path, earlier: Path) -> None:
    """Keep what has been learned: of this training or, if that is nothing, of the one that it was to replace."""
    if not any(path.suffix == ".safetensors" or path.name == "output.pkl" for path in folder.rglob("*")):
        shutil.rmtree(folder, ignore_errors=True)
        if earlier.exists():
            earlier.rename(folder)
    shutil.rmtree(earlier, ignore_errors=True)


def _resumed(folder: Path, output: Path, settings: Mapping[str, Any]) -> str:
    """Say what is resumed, or refuse if it was begun with other settings."""
    try:
        earlier = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        changed = _changes(earlier, json.loads(to_json(settings)))
    except (OSError, ValueError, AttributeError, KeyError):
        return f"{folder.name!r} has no record of the settings it was begun with; what fits these settings is used."
    if changed:
        raise InputError(
            f"The unfinished training of {output.name!r} was begun with {listing(changed)}. Repeat that, or use "
            "--overwrite without --resume to start anew."
        )
    return f"Resuming the training in {folder.name!r}."


def _changes(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name what was different when a training began."""
    names = sorted((earlier.keys() | now.keys()) - {"scans"})
    differing = {name: earlier.get(name) for name in names if earlier.get(name) != now.get(name)}
    changed = [f"the default {name}" if was is None else f"{name}={was!r}" for name, was in differing.items()]
    before, after = earlier["scans"], now["scans"]
    missing, added = before.keys() - after.keys(), after.keys() - before.keys()
    other = {scan for scan in before.keys() & after.keys() if before[scan] != after[scan]}
    counts = (("more", missing), ("fewer", added), ("other", other))
    changed += [f"{len(scans)} {how} scans ({min(scans)})" for how, scans in counts if scans]
    return changed
