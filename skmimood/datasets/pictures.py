"""Folders of pictures as arrays: healthy ones, ill ones by kind, and masks, as MVTec and BMAD lay them out."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skmimood.exceptions import InputError, listing
from skmimood.nifti import PICTURES, file_stem, find_scans, read_scan
from skmimood.runtime.paths import expand

_HEALTHY = ("good", "normal", "healthy", "negative")
_MASKS = ("ground_truth", "mask", "masks", "label", "labels", "segmentation", "segmentations")
_IMAGES = ("img", "image", "images")
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Pictures of one size with their masks.

    Attributes
    ----------
    images : ndarray of shape (n, height, width), float32
        Intensities in [0, 1]: of 8 bits divided by 255, of more by the highest value of the set.
    masks : ndarray of shape (n, height, width), bool, or None
        What is abnormal, nothing in healthy pictures; None if there are no masks at all.
    kinds : tuple of str
        Name of each picture's folder, such as ``"good"``.
    is_healthy : ndarray of shape (n,), bool
        Whether the kind is good, normal, healthy or negative.
    splits : tuple of str
        ``"train"``, ``"val"`` or ``"test"`` by the folder above; empty if there is none.
    paths : tuple of Path
        The files.
    """

    images: np.ndarray = field(repr=False)
    masks: np.ndarray | None = field(repr=False)
    kinds: tuple[str, ...] = field(repr=False)
    is_healthy: np.ndarray = field(repr=False)
    splits: tuple[str, ...] = field(repr=False)
    paths: tuple[Path, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class _Place:
    """What the folders of a picture say of it."""

    path: Path
    split: str
    kind: str
    is_mask: bool

    @classmethod
    def of(cls, path: Path, root: Path) -> _Place:
        folders = [part.casefold() for part in path.relative_to(root).parts[:-1]]
        named = [part for part in folders if part not in (*_MASKS, *_IMAGES, *_SPLITS)]
        split = next((_SPLITS[part] for part in folders if part in _SPLITS), "")
        return cls(path, split, named[-1] if named else "", any(part in _MASKS for part in folders))

    @property
    def name(self) -> str:
        """The file's name, of a mask without the word that says so."""
        stem = file_stem(self.path).casefold()
        start, _, last = stem.rpartition("_")
        return start if self.is_mask and start and last in (*_MASKS, "seg", "gt") else stem


def load_picture_folder(root: str | os.PathLike, *, size: tuple[int, int] | None = None) -> PictureSet:
    """Read a tree of PNG, JPEG or TIFF pictures, for pipelines that take arrays.

    Parameters
    ----------
    root : str or path
        Folder with a folder of each kind, ``good/000.png`` and ``crack/001.png``, perhaps in folders of splits
        (``train``, ``valid``, ``test``). Masks lie in folders called ``ground_truth``, ``mask`` or ``label``, by the
        names of their pictures, with or without ``_mask``: ``ground_truth/crack/001_mask.png`` (MVTec),
        ``test/Ungood/label/001.png`` beside ``test/Ungood/img/001.png`` (BMAD), or ``masks/001.png``.
    size : (int, int), optional
        Height and width to which pictures are brought. By default all must have one size.

    Returns
    -------
    PictureSet
        In the order of the paths.

    Raises
    ------
    InputError
        If there are no pictures, or they differ in size and none is given, or some that are not healthy have masks and
        others have none, or two.
    """
    folder = expand(root)
    found = [Path(str(path)) for path in find_scans(folder)]
    if not folder.is_dir() or not all(path.suffix.lower() in PICTURES for path in found):
        raise InputError(
            f"{os.fspath(root)!r} is no folder of pictures alone. Pass the folder of the pictures."
        )
    places = [_Place.of(path, folder) for path in found]
    pictures, masks = ([one for one in places if one.is_mask is kind] for kind in (False, True))
    if not pictures:
        raise InputError(
            f"{os.fspath(root)!r} holds masks only. Pass the folder above, with the pictures too."
        )
    paired = {one.path: _mask_of(one, masks) for one in pictures if one.kind not in _HEALTHY}
    bare = [str(path.relative_to(folder)) for path, mask in paired.items() if mask is None]
    if masks and bare:
        raise InputError(
            f"No mask is named like {listing(bare)}. Add the masks, or move these pictures away."
        )
    images = np.stack(_of_one_size([_read(one.path) for one in pictures], size))
    images /= 255 if images.max() <= 255 else images.max()
    shape = images.shape[1:]
    drawn = None
    if masks:
        drawn = np.zeros(images.shape, dtype=bool)
        for target, one in zip(drawn, pictures, strict=True):
            if (mask := paired.get(one.path)) is not None:
                values = _read(mask)
                target[...] = _resized(values / max(values.max(), 1), shape) >= 0.5
    return PictureSet(
        images, drawn, tuple(one.kind for one in pictures),
        np.asarray([one.kind in _HEALTHY for one in pictures]),
        tuple(one.split for one in pictures), tuple(one.path for one in pictures),
    )  # fmt: skip


def _mask_of(picture: _Place, masks: list[_Place]) -> Path | None:
    """Return the mask of a picture: of its name, and of its kind and split where the folders of masks say them."""
    fitting = [
        mask.path
        for mask in masks
        if mask.name == picture.name and mask.kind in ("", picture.kind) and mask.split in ("", picture.split)
    ]
    if len(fitting) > 1:
        raise InputError(
            f"{listing(path.name for path in fitting)} could each be the mask of {picture.path.name}. Leave only one."
        )
    return fitting[0] if fitting else None


def _read(path: Path) -> np.ndarray:
    """Return a picture of shape (height, width), float32."""
    return read_scan(path).data[:, :, 0].T


def _of_one_size(pictures: list[np.ndarray], size: tuple[int, int] | None) -> list[np.ndarray]:
    if size is not None:
        return [_resized(picture, size) for picture in pictures]
    sizes = Counter(picture.shape for picture in pictures)
    if len(sizes) > 1:
        named = ", ".join(f"{n} of {height} x {width}" for (height, width), n in sizes.most_common(3))
        raise InputError(f"The pictures differ in size ({named}). Pass size=(height, width) for all of them.")
    return pictures


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    if picture.shape == size:
        return picture
    height, width = size
    resized = Image.fromarray(picture.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)
