"""Which files are scans, which are masks, and which mask belongs to which scan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nibabel.spatialimages import SpatialImage

from skmimood.exceptions import InputError, listing, warn
from skmimood.nifti import EXTENSIONS, PICTURES, Source, bids, file_stem, find_companion, find_scans, scan_ids
from skmimood.nifti.files import LABEL_ENDINGS, RESULT_ENDINGS, as_entries, is_series, is_wanted
from skmimood.nifti.names import RESULT_EXTENSIONS, check_source, entities, file_path, present_parts
from skmimood.runtime.paths import expand
from skmimood.scans.modalities import find_together, modality_names
from skmimood.scans.subjects import groups_of

_NO_SCANS = (*LABEL_ENDINGS, *RESULT_ENDINGS)  # where no modality chooses
FOREGROUNDS = ("auto", "none", "ct-brain")
"""What a detector's ``mask`` may be besides an ending of files."""

NEVER_LESIONS = ("_brainmask", "_brain_mask", "_desc-brain_mask")


@dataclass(frozen=True, eq=False)
class ListedScan:
    """A scan that was given, before it is read: its name, its file or those of its modalities, its masks and whose."""

    id: str
    source: Source
    lesions: Source | None = None
    group: str = ""
    brain_mask: Source | None = None


def list_scans(
    X: Any, y: Any, groups: Any, brain_masks: Any, *, suffix: str | None, exclude: Sequence[str]
) -> list[ListedScan]:
    """List healthy scans with their masks and groups; a file that is named twice is listed once."""
    sources = find_named_or_chosen(X, suffix=suffix, exclude=exclude)
    groups, brains = groups_of(sources, groups), pair_brain_masks(brain_masks, sources)
    places = first_places(sources)
    if len(places) < len(sources):
        warn(f"{len(sources) - len(places)} of the files are named more than once; each is taken once.")
    labels = label_images(sources, suffix=suffix, exclude=exclude)
    if len(labels) == len(sources):
        warn(f"Taken for scans, though all are named like label images or results: {_stems(sources)}.")
    else:
        places = [place for place in places if place not in labels]
    named, entries = [sources[place] for place in places], as_entries(y)
    masks = pair_masks([entries[k] for k in places] if len(entries) == len(sources) > 1 else y, named)
    return [
        ListedScan(name, sources[place], mask, groups[place], brains[place])
        for name, place, mask in zip(scan_ids(named), places, masks, strict=True)
    ]


def label_images(sources: Sequence[Source], *, suffix: str | None, exclude: Sequence[str]) -> set[int]:
    """Return the places of files named like masks or results, which a shell passes for ``healthy/*.nii.gz``.

    There is a warning, unless all files are named so: then they may be scans. Files of the ending ``suffix`` are scans.
    """
    endings = (*exclude, *_NO_SCANS)
    labels = {
        place
        for place, source in enumerate(sources)
        if not isinstance(source, SpatialImage | tuple)
        and not is_wanted(file_stem(source), None, endings)
        and (suffix is None or not is_wanted(file_stem(source), suffix, ()))
    }
    if 0 < len(labels) < len(sources):
        names = _stems(sources[place] for place in sorted(labels))
        warn(
            f"Left out, as they are named like label images or results: {names}. If one is a scan, rename it."
        )
    return labels


def _stems(sources: Iterable[Source]) -> str:
    return listing(file_stem(str(source)) for source in sources)


def list_in_order(
    X: Any, y: Any, brain_masks: Any, *, suffix: str | None, exclude: Sequence[str]
) -> list[ListedScan]:
    """List scans to be scored as `list_scans` does, but each as often as it is named: results line up with them."""
    sources = find_named_or_chosen(X, suffix=suffix, exclude=exclude)
    names, masks, brains = scan_ids(sources), pair_masks(y, sources), pair_brain_masks(brain_masks, sources)
    return [
        ListedScan(name, source, lesions, name, brain)
        for name, source, lesions, brain in zip(names, sources, masks, brains, strict=True)
    ]


def mask_suffixes(mask: str | Sequence[str], y: Any) -> tuple[str, ...]:
    """Return the endings of masks that were named, by a detector's ``mask`` and by ``y``."""
    masks = (mask,) if isinstance(mask, str) else mask
    return tuple(
        suffix for suffix in (*masks, y) if is_suffix(suffix) and suffix not in (*FOREGROUNDS, "given")
    )


def find_named_or_chosen(X: Any, *, suffix: str | None, exclude: Sequence[str]) -> list[Source]:
    """List scans, choosing among the files of folders and globs only: results line up with files named one by one.

    Files that end in one of ``exclude`` are left out, and with a warning those named like label images or results, if
    no ``suffix`` chooses. If it names several modalities, each scan is a tuple of their files: see `find_together`.
    """
    found: list[Source] = []
    modalities = modality_names(suffix)
    for entry in as_entries(X):
        if isinstance(entry, tuple):
            check_source(entry)
            found.append(entry if len(entry) > 1 else entry[0])
        elif len(modalities) > 1 and isinstance(entry, str | os.PathLike):
            found += find_together(entry, modalities, exclude)
        elif not isinstance(entry, (str, os.PathLike)) or expand(entry).is_file() or is_series(entry):
            found += find_scans(entry)
        elif suffix is not None:
            found += find_scans(entry, suffix=suffix, exclude=exclude)
        else:
            found += _without_label_images(entry, exclude)
    return found or find_scans(X)  # which says that there is none


def _without_label_images(folder: str | os.PathLike, exclude: Sequence[str]) -> list[Source]:
    chosen = find_scans(folder, exclude=(*exclude, *_NO_SCANS))
    kept = set(chosen)
    others = map(str, find_scans(folder, exclude=(*exclude, *RESULT_ENDINGS)))
    labels = [path for path in map(Path, others) if path not in kept and not _is_result(path)]
    if labels:
        warn(
            f"Files in {Path(folder).name!r} left out since they are named like label images ({len(labels)}): "
            f"{_stems(labels)}. If they are scans, rename them, or choose by an ending (modality)."
        )
    root = expand(folder)
    return bids.anatomical(chosen, root) if bids.is_data_set(root) else chosen


def _is_result(mask: Path) -> bool:
    """Tell whether a mask or its lesions lie beside the map of the scan, as `ScanResult.save` writes them."""
    anomaly = f"{_stem(file_stem(mask))}_anomaly"
    return any(mask.with_name(anomaly + extension).exists() for extension in RESULT_EXTENSIONS)


def first_places(sources: Sequence[Source]) -> list[int]:
    """Return the places of the scans without paths to a file that came before; images all stay."""
    first: dict[Any, int] = {}
    for place, source in enumerate(sources):
        parts = present_parts(source)
        is_in_memory = any(isinstance(part, SpatialImage) for part in parts)
        first.setdefault(place if is_in_memory else tuple(map(_real_path, parts)), place)
    return list(first.values())


def pair_masks(y: Any, sources: Sequence[Source]) -> list[Source | None]:
    """Find the lesion mask of each scan, by ``y``: None, suffix, folder, glob, or list of paths, images and None.

    See `skmimood.ScanDetector.score`. Masks of a folder or glob may also have the scan's BIDS entities; scans and brain
    masks there are ignored. `InputError` if a scan has no mask, two, or itself as one.
    """
    if y is None:
        return [None] * len(sources)
    ids = scan_ids(sources)
    if is_suffix(y):
        beside = [find_companion(source, y) for source in sources]
        _check_complete(beside, ids, f'no file "{y}" beside')
        return list(beside)
    entries = as_entries(y)
    is_file = isinstance(y, SpatialImage) or (isinstance(y, (str, os.PathLike)) and expand(y).is_file())
    if len(entries) != 1 or entries[0] is not y or (is_file and len(sources) == 1):
        return _one_each(entries, sources, "y", "lesion mask")
    found = find_scans(y, exclude=NEVER_LESIONS)
    scans = {_real_path(part) for source in sources for part in present_parts(source)} - {None}
    masks = [source for source in found if _real_path(source) not in scans]
    pairs = masks_by_name(masks, ids)
    _check_complete(pairs, ids, "no lesion mask in y for")
    return pairs


def masks_by_name(
    masks: Sequence[Source], ids: Sequence[str], *, suffix: str | None = None
) -> list[Source | None]:
    """Return the mask that is named like each scan, None where none is; ``suffix`` is no part of the masks' names.

    `InputError` if two masks could be that of one scan.
    """
    ends = len((suffix or "").lstrip("_-."))
    stems = [name[: len(name) - ends].rstrip("_-.") if ends else name for name in scan_ids(masks)]
    named = dict(zip(stems, masks, strict=True))
    return [_mask_named_like(name, named) for name in ids]


def pair_brain_masks(brain_masks: Any, sources: Sequence[Source]) -> list[Source | None]:
    """Return the brain mask that was handed over with each scan, None where there is none; one alone for one scan."""
    if brain_masks is None:
        return [None] * len(sources)
    if is_suffix(brain_masks):
        raise InputError(
            f"brain_masks must be masks, one for each scan; got {brain_masks!r}. The ending of masks that lie beside "
            f"the scans is the parameter mask: set_params(mask={brain_masks!r})."
        )
    return _one_each(as_entries(brain_masks), sources, "brain_masks", "brain mask")


def is_suffix(y: Any) -> bool:
    """Tell whether ``y`` is the ending of mask names, such as ``"_seg"``, rather than a path or glob."""
    return (
        isinstance(y, str)
        and not any(mark in y for mark in "/\\*?[")
        and not y.lower().endswith((*EXTENSIONS, *PICTURES))
        and not os.path.exists(y)
    )


def _mask_named_like(scan: str, masks: Mapping[str, Source]) -> Source | None:
    """Return the mask whose name agrees best with a scan's: whole names first, then without their last parts."""
    stem = _stem(scan)
    rules: list[Callable[[str], bool]] = [
        lambda name: name == scan,
        lambda name: _stem(name) == scan,
        lambda name: name == stem,
        lambda name: _stem(name) == stem != "",
        lambda name: entities(name) == entities(scan) != [],
    ]
    best = next((found for rule in rules if (found := list(filter(rule, masks)))), [])
    if len(best) > 1:
        raise InputError(
            f"{listing(map(repr, sorted(best)))} in y could each be the lesion mask of {scan!r}. Leave only "
            "one of them there, or pass a suffix or a list."
        )
    return masks[best[0]] if best else None


def _stem(name: str) -> str:
    return name.rpartition("_")[0]


def _one_each(entries: Sequence[Any], sources: Sequence[Source], name: str, kind: str) -> list[Source | None]:
    """Return the masks in a list, called ``name``, of one entry a scan."""
    if len(entries) != len(sources):
        raise InputError(
            f"{name} must have one {kind} for each of the {len(sources)} scans; got {len(entries)}. "
            "Use None for a scan that has none."
        )
    masks = [None if _is_missing(mask) else _only_file(mask, name, kind) for mask in entries]
    for mask, source, scan in zip(masks, sources, scan_ids(sources), strict=True):
        is_same_file = mask is not None and _real_path(mask) == _real_path(source) is not None
        if mask is source or is_same_file:
            raise InputError(f"{scan!r} is given as its own {kind}. Pass the mask, or None if it has none.")
    return masks


def _is_missing(mask: Any) -> bool:
    return not isinstance(mask, Source) and str(mask) in ("None", "nan", "<NA>")  # as tables have it


def _only_file(mask: Any, name: str, kind: str) -> Source:
    found = find_scans(mask)
    if len(found) > 1:
        raise InputError(f"{mask!r} in {name} stands for {len(found)} files. Name one {kind} for each scan.")
    return found[0]


def _real_path(source: Source) -> str | None:
    path = file_path(source)
    return None if path is None else os.path.realpath(path)


def _check_complete(masks: Sequence[Source | None], ids: Sequence[str], fault: str) -> None:
    missing = [name for name, mask in zip(ids, masks, strict=True) if mask is None]
    if missing:
        raise InputError(
            f"{fault} {listing(missing)}. Add the masks, or pass a list with None for scans without lesions."
        )
