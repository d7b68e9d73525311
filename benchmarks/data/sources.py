"""Where the slices of each data set come from, and the cache that keeps them from being read twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from scipy.ndimage import binary_fill_holes

from benchmarks.data.folds import pool_of
from benchmarks.data.gliomas import GLIOMAS
from benchmarks.data.head_ct import Kinds, ct_slices
from benchmarks.data.phantom_lesions import PHANTOM_LESIONS
from benchmarks.data.planted import Law, plant
from benchmarks.data.slices import MAX_SLICES, SliceSet, join, rounded, slices_of
from skmimood import datasets
from skmimood.datasets import read_splits, split_scan_set
from skmimood.datasets.phantom import Recipe
from skmimood.datasets.scan_sets import ScanSet
from skmimood.exceptions import InputError
from skmimood.runtime.code_digest import code_digest

_LOADERS: dict[str, Callable[..., ScanSet]] = {
    "lgg": datasets.load_lgg, "ixi-synthetic": datasets.load_ixi, "ixi-grown": datasets.load_ixi,
    "brats": datasets.load_brats, "mslub": datasets.load_mslub, "folder": datasets.load_image_mask_folder,
    "ct": datasets.load_ct_ich,
}  # fmt: skip
DATA = ("phantom", *(name for name in _LOADERS if name != "ct"))  # those with masks of lesions
PLANTED: dict[str, Law] = {"ixi-synthetic": PHANTOM_LESIONS, "ixi-grown": GLIOMAS}
_MAX_SLICES = MAX_SLICES | {"train": 1300}  # of the sets with planted lesions
_HCP = "*/T1w/{contrast}_acpc_dc_restore_brain.nii.gz"  # HCP Young Adult, structural preprocessed


def open_slices(
    data: str, size: int, *, root: str | None = None, healthy: str | None = None, modality: str | None = None,
    cache: Path, file: Path | None = None, pooled: bool = False,
) -> SliceSet:  # fmt: skip
    """Return the slices of a data set, from ``file`` or the ``cache`` if they hold them, else from the scans.

    ``pooled`` asks for those of all patients for `fold_of`, whatever splits.csv says, instead of those of its splits.
    """
    if file is not None and file.exists():
        slices = SliceSet.load(file)
        n_pixels = slices.images.shape[1]
        if slices.dataset != data or (data != "phantom" and n_pixels != size):
            raise InputError(
                f"{file} holds slices of {slices.dataset} of {n_pixels} pixels; asked for are {data} and the {size} "
                "pixels of the preset. Pass another --slices."
            )
        if ("val" in slices.splits) == pooled:
            held, option = (
                ("the splits of splits.csv", "without") if pooled else ("all patients for folds", "with")
            )
            raise InputError(
                f"{file} holds slices of {held}. Pass another --slices, or run {option} --folds."
            )
        return slices if pooled else slices.check()
    if pooled:
        scans = {"pool": all_scans_of(data, root, modality)}
    else:
        scans = {} if data == "phantom" else scans_of(data, root, healthy, modality)
    kinds = datasets.read_slice_kinds(data_folder(data, root) / "slices.csv") if data == "ct" else {}
    kept = cache / "slices" / f"{data}-{_key(scans, size, kinds)}-{code_digest(__name__)}.npz"
    slices = SliceSet.load(kept) if kept.exists() else _read(data, scans, size, kinds)
    if not pooled:
        slices.check()
    for path in {kept, file or kept}:
        if not path.exists():
            slices.save(path)
    return slices


def _read(data: str, scans: Mapping[str, ScanSet], size: int, kinds: Kinds) -> SliceSet:
    if data == "phantom":
        return phantom_slices()
    if data == "ct":
        return ct_slices(scans, kinds, size)
    planted: dict[str, Any] = {}
    if data in PLANTED:
        planted = {"max_slices": _MAX_SLICES, "plant": partial(plant, law=PLANTED[data])}
    # The other public sets are skull-stripped, or have brain masks.
    is_brain = data not in ("lgg", "folder")
    if "pool" in scans:
        return pool_of(data, scans["pool"], size, is_brain=is_brain, **planted)
    return slices_of(data, scans, size, is_brain=is_brain, **planted)


def scans_of(
    data: str, root: str | None, healthy: str | None = None, modality: str | None = None
) -> dict[str, ScanSet]:
    """Find the scans of ``"train"``, ``"val"`` and ``"test"``; no voxel is read."""
    folder = data_folder("ixi" if data in PLANTED else data, root)
    scans = _LOADERS[data](folder, **_given(modality))
    table = read_splits(folder / "splits.csv")
    splits = split_scan_set(scans, {name: table[name] for name in MAX_SLICES if name in table})
    if healthy is not None:
        if "train" in splits:
            raise InputError(
                f"splits.csv has a split 'train' of {len(splits['train'])} scans, and healthy scans are given too: "
                f"{healthy}. Rename that split, or leave out --healthy."
            )
        splits = {"train": healthy_scans(Path(healthy), scans.modality), **splits}
    for split in MAX_SLICES:
        if not len(splits.get(split, ())):
            raise InputError(
                f"{data}: there is no scan in split {split!r}. Give each of 'train', 'val' and 'test' some subjects "
                "in splits.csv."
            )
        _check(data, splits[split])
    return splits


def all_scans_of(data: str, root: str | None, modality: str | None = None) -> ScanSet:
    """Find the scans of all patients, of whatever split; no voxel is read."""
    if data not in _LOADERS:
        raise InputError(
            f"{data}: there are no patients to divide into folds. Take one of {', '.join(_LOADERS)}."
        )
    scans = _LOADERS[data](data_folder("ixi" if data in PLANTED else data, root), **_given(modality))
    _check(data, scans)
    return scans


def _check(data: str, scans: ScanSet) -> None:
    scans.check()
    if data in PLANTED and None in scans.brain_masks:
        bare = scans.subjects[scans.brain_masks.index(None)]
        raise InputError(f"{data}: {bare} has no brain mask. Put {bare}_brainmask.nii.gz beside it.")


def data_root(root: str | None) -> Path:
    """Return the folder that holds all data sets: the argument, else $SKMIMOOD_DATA, else ../shared/data."""
    return Path(root or os.environ.get("SKMIMOOD_DATA") or "../shared/data").expanduser()


def data_folder(name: str, root: str | None) -> Path:
    """Return the folder of a data set: ``root`` itself if it has a splits.csv, or the folder of that name in it."""
    base = data_root(root)
    return base / name if (base / name).is_dir() and not (base / "splits.csv").is_file() else base


def _given(modality: str | None) -> dict[str, str]:
    return {} if modality is None else {"modality": modality}


def healthy_scans(folder: Path, modality: str | None) -> ScanSet:
    """Find healthy scans: HCP's ``<subject>/T1w/T2w_acpc_dc_restore_brain.nii.gz``, IXI's names, or any others."""
    contrast = {"t1": "T1w", "t2": "T2w"}.get(modality or "", "")
    found = sorted(folder.glob(_HCP.format(contrast=contrast))) if contrast else []
    if found:
        subjects = tuple(path.parts[-3] for path in found)
        nothing = (None,) * len(found)
        return ScanSet("HCP", modality, subjects, tuple(found), nothing, nothing, "WU-Minn HCP open access")
    if any(folder.rglob("IXI*.nii*")):
        return datasets.load_ixi(folder, **_given(modality))
    return datasets.load_image_mask_folder(folder, modality=modality, brain_mask_suffix="_brainmask")


def _key(splits: Mapping[str, ScanSet], size: int, kinds: Kinds) -> str:
    """Return a digest of the names, sizes and times of all files, of the splits, kinds and the slices' size."""
    told: list[Any] = [size, *([kinds] if kinds else [])]
    for split, scans in splits.items():
        for path in filter(None, (*scans.scans, *scans.masks, *scans.brain_masks)):
            told.append((split, path.name, path.stat().st_size, path.stat().st_mtime_ns))
    return joblib.hash(told)[:16]


def phantom_slices(
    size: int = 64, n_slices: int = 12, n_healthy: int = 36, n_patients: int = 10, *, lesions: bool = True
) -> SliceSet:
    """Make phantom volumes: healthy ones to learn from, and as many with lesions, kind after kind, in val and test.

    Without ``lesions`` all slices of the same volumes are made as they were before.
    """
    distance = Recipe((size, size), "t2", n_slices, skull=False).affine()[2, 2]
    parts = []
    for seed, split in enumerate(("train", "val", "test")):
        has_lesions, n = lesions and split != "train", n_healthy if split == "train" else n_patients
        volumes, masks = datasets.make_brain_phantom(
            n, size=size, n_slices=n_slices, lesions=has_lesions, random_state=seed
        )
        for i, (images, truth) in enumerate(zip(volumes, masks, strict=True)):
            head = np.stack([binary_fill_holes(one) for one in images > 0])
            kind = datasets.LESION_KINDS[i % len(datasets.LESION_KINDS)] if has_lesions else ""
            kinds = np.where(truth.any((1, 2)), kind, "")
            patients, splits = (np.full(n_slices, name) for name in (f"{split}-{i:02d}", split))
            made = SliceSet(
                "phantom", rounded(images), truth, head, head, patients, splits, kinds, "brain", 200 / size,
                vanished=np.zeros(n_slices, bool), index=np.arange(n_slices),
                distance=np.full(n_slices, distance),
            )  # fmt: skip
            parts.append(made.used(n_slices) if lesions else made)
    return join(parts)
