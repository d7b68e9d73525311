"""Scans of several modalities: which files are of one scan, and whether they are whole and on one grid."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skmimood.exceptions import InputError, ScanReadError
from skmimood.nifti import EXTENSIONS, PICTURES, Scan, file_stem, find_scans
from skmimood.nifti.files import is_wanted
from skmimood.runtime.paths import expand

Files = tuple[Path | None, ...]


def modality_names(modality: str | None) -> tuple[str, ...]:
    """Return the endings of files that a ``modality`` such as ``"T1w,FLAIR"`` names, in order."""
    return tuple(name for part in (modality or "").split(",") if (name := part.strip()))


def n_modalities(source: Any) -> int:
    """Return of how many modalities a scan is, missing ones included."""
    return len(source) if isinstance(source, tuple) else 1


@dataclass(frozen=True)
class Modalities:
    """How many modalities each scan must have, and by ``modality`` what they are called."""

    n: int = 1
    modality: str | None = None

    def name(self, place: int) -> str:
        """Return what the modality at a place is called."""
        names = modality_names(self.modality)
        return names[place] if len(names) == self.n else f"modality {place + 1}"

    def check_complete(self, scan: str, source: Any) -> None:
        """Raise `ScanReadError` unless a scan has all modalities and no more."""
        if (n := n_modalities(source)) != self.n:
            raise ScanReadError(
                scan,
                f"has {n} {'modality' if n == 1 else 'modalities'}, and the model takes {self.n}. Pass as many files, "
                "several as a tuple in the order of fit, or name their endings (modality, --modality T1w,FLAIR).",
            )
        missing = [self.name(place) for place in range(self.n) if self.n > 1 and source[place] is None]
        if missing:
            raise ScanReadError(
                scan,
                f"has no {' and no '.join(missing)}. Put the file beside the others, named as they are but for its "
                "ending, or leave this scan out.",
            )

    def check_grids(self, scan: str, parts: Sequence[Scan]) -> None:
        """Raise `ScanReadError` unless the modalities of a scan, as read, lie on one grid."""
        shape = parts[0].data.shape
        for place, part in enumerate(parts):
            if part.grid.matches(parts[0].grid):
                continue
            differs = "another affine than"
            if part.data.shape != shape:
                differs = f"{_sides(part.data.shape)} voxels and not the {_sides(shape)} of"
            raise ScanReadError(
                scan,
                f"has its modalities on different grids: {self.name(place)} has {differs} {self.name(0)}. Register "
                "them and resample each to the grid of the first, with ANTs or FSL, or if they are registered with "
                "nilearn.image.resample_to_img.",
            )


ONE_MODALITY = Modalities()


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def find_together(entry: Any, modalities: Sequence[str], exclude: Sequence[str]) -> list[Files]:
    """List the scans of a folder, glob or file: of each, the file of every modality, None where there is none.

    Files of one scan lie in one folder and have one name but for the modality that it ends in. A file stands for its
    scan: the others are found beside it. `InputError` if none is named by a modality, or two are of the same.
    """
    path = expand(entry)
    found = find_scans(entry) if path.is_file() else find_scans(entry, exclude=exclude)
    files = [Path(str(file)) for file in found]
    named = [(file.parent, known[1]) for file in files if (known := _split_name(file, modalities))]
    beside = functools.cache(lambda folder: _scans_in(folder, modalities, exclude))
    scans = [whole for folder, name in dict.fromkeys(named) if (whole := beside(folder).get(name))]
    if not scans:
        raise InputError(
            f"No scan in {os.fspath(entry)!r} has a name that ends in {' or '.join(map(repr, modalities))}. Check the "
            "modalities."
        )
    return scans


def _scans_in(folder: Path, modalities: Sequence[str], exclude: Sequence[str]) -> dict[str, Files]:
    """Return the files of each scan in a folder, by what its files' names have in common."""
    scans: dict[str, dict[str, Path]] = {}
    for name in sorted(os.listdir(folder)):
        file = folder / name
        is_image = name.lower().endswith((*EXTENSIONS, *PICTURES)) and not name.startswith(".")
        known = _split_name(file, modalities)
        if not (is_image and known and is_wanted(file_stem(file), None, exclude)):
            continue
        modality, scan = known
        if (other := scans.setdefault(scan, {}).setdefault(modality, file)) != file:
            raise InputError(
                f"{other.name!r} and {name!r} could both be {modality} of one scan. Leave only one of them there."
            )
    return {scan: tuple(files.get(one) for one in modalities) for scan, files in scans.items()}


def _split_name(file: Path, modalities: Sequence[str]) -> tuple[str, str] | None:
    """Return the modality that a file's name ends in, and what comes before it; None if it ends in none."""
    stem = file_stem(file)
    modality = next((one for one in modalities if is_wanted(stem, one, ())), None)
    if modality is None:
        return None
    return modality, stem[: len(stem) - len(modality.lstrip("_-."))].rstrip("_-.+").casefold()
