"""What is found in one scan, as images on its own grid and as the files that they are written to."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skmimood.exceptions import InputError, ScanWriteError
from skmimood.maps.lesions import Lesion, find_lesions
from skmimood.nifti import bids, write_image
from skmimood.nifti.geometry import in_millimetres
from skmimood.nifti.names import RESULT_EXTENSIONS
from skmimood.runtime.files import replacing
from skmimood.runtime.paths import expand
from skmimood.validation.images import MAX_CHANNELS

if TYPE_CHECKING:
    from nibabel import Nifti1Image

OUTPUTS = (
    "_anomaly.nii.gz",
    "_pvalue.nii.gz",
    "_mask.nii.gz",
    "_lesions.nii.gz",
    "_lesions.csv",
    "_healed.nii.gz",
)
"""What the results of a scan are called after its id; images of other formats have their extension."""

_MAX_NAME_BYTES = 255  # of a file name on the common file systems


def output_stem(scan: str) -> str:
    """Return the id as results carry it in their names: shortened, with a checksum, where it is too long."""
    room = _MAX_NAME_BYTES - max(map(len, OUTPUTS))
    name = scan.encode("utf-8", "surrogateescape")
    if len(name) > room:
        mark = b"-" + hashlib.sha256(name).hexdigest()[:12].encode()
        name = name[: room - len(mark)].decode("utf-8", "ignore").encode() + mark
    return os.fsdecode(name)


def result_paths(
    folder: Path, scan: str, *, healed: bool = True, extension: str = ".nii.gz", in_bids: bool = False
) -> list[Path]:
    """Return where the results of a scan are written, in the order of `OUTPUTS`; without ``healed`` but the last.

    In the layout of BIDS, images are NIfTI; `InputError` if the scan is not named by it.
    """
    if in_bids:
        names = bids.result_names(scan)
    else:
        names = tuple(output_stem(scan) + ending.replace(".nii.gz", extension) for ending in OUTPUTS)
    return [folder / name for name in (names if healed else names[:-1])]


def possible_paths(folder: Path, scan: str, *, healed: bool = True) -> list[list[Path]]:
    """Return `result_paths` of each format and layout that the results of a scan may have."""
    paths = [result_paths(folder, scan, healed=healed, extension=each) for each in RESULT_EXTENSIONS]
    with contextlib.suppress(InputError):
        paths.append(result_paths(folder, scan, healed=healed, in_bids=True))
    return paths


def further_healed(folder: Path, scan: str, extension: str, n_modalities: int = MAX_CHANNELS) -> list[Path]:
    """Return where the healed scans of the second and every further modality are written."""
    return [folder / f"{output_stem(scan)}_healed{place}{extension}" for place in range(2, n_modalities + 1)]


def written_paths(folder: Path, scan: str, *, healed: bool = False) -> list[Path] | None:
    """Return `result_paths` of the format and layout whose files are all there; None if none has all."""
    candidates = possible_paths(folder, scan, healed=healed)
    return next((paths for paths in candidates if all(map(Path.is_file, paths))), None)


@dataclass(frozen=True, eq=False)
class Gallery:
    """The most anomalous slices of a scan on the network's grid, the most anomalous first.

    Attributes
    ----------
    images, healed, maps : ndarray of shape (k, H, W), float32
        Slices as the network saw them, of several modalities the first, healed as `ScanResult.healed` is, and their
        anomaly maps.
    masks : ndarray of shape (k, H, W), bool
        Where the maps exceed the pixel threshold.
    indices : ndarray of shape (k,), int64
        Number of each slice, counted as :class:`skmimood.preprocessing.GridPlan` does (axial: upwards).
    profile : ndarray of shape (n_slices,), float32
        Of every slice of the scan, the mean of the highest 1 % of its map; 0 without foreground.
    """

    images: np.ndarray
    healed: np.ndarray
    maps: np.ndarray
    masks: np.ndarray
    indices: np.ndarray
    profile: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))


@dataclass(frozen=True, eq=False)
class ScanResult:
    """What :class:`skmimood.ScanDetector` finds in one scan.

    Attributes
    ----------
    id : str
        What the scan is called: see :func:`skmimood.nifti.scan_ids`.
    score : float
        How far and how high the map exceeds what 1 % of the healthy voxels do, in units of the map times ml: the
        :func:`~skmimood.maps.volumes.cluster_mass` on the network's grid. Models saved before it was there score by
        the mean of the highest 1 % of the foreground's map values, until they are calibrated anew.
    pvalue : float
        Share of healthy held-out scans that score as high, in (0, 1].
    is_anomalous : bool
        Whether ``score`` exceeds the scan threshold.
    anomaly : Nifti1Image, float32
        The map on the scan's own grid; 0 outside the foreground, NaN where the scan was NaN or infinite.
    pvalues : Nifti1Image, float32
        Share of healthy held-out pixels that score as high; 1 outside the foreground.
    mask : Nifti1Image, uint8
        1 where the map exceeds the pixel threshold.
    flags : tuple of str
        Remarks on the scan's quality and on whether the model may be asked about it.
    gallery : Gallery
        The four most anomalous slices; fewer if the scan has fewer.
    scan : Nifti1Image, float32, or None
        The scan itself, of several modalities the first. The display range of its header, ``cal_min`` to ``cal_max``,
        is what networks see as 0 to 1.
    healing : callable or None
        Draws the healed scan of a modality, counted from 0.
    extension : str
        Of the files that `save` writes: that of the scan's format, ``.nii.gz`` where there is none or it cannot be
        written.
    n_modalities : int
        Of the scan: as many as the model has learned from.
    """

    id: str
    score: float
    pvalue: float
    is_anomalous: bool
    anomaly: Nifti1Image
    pvalues: Nifti1Image
    mask: Nifti1Image
    flags: tuple[str, ...]
    gallery: Gallery
    scan: Nifti1Image | None = field(default=None, repr=False)
    healing: Callable[[int], Nifti1Image] | None = field(default=None, repr=False)
    extension: str = ".nii.gz"
    n_modalities: int = 1

    @property
    def labels(self) -> Nifti1Image:
        """The connected parts of the mask on the scan's own grid, numbered from 1, the largest."""
        return self._labels_and_lesions[0]

    @property
    def lesions(self) -> list[Lesion]:
        """Volume, peak, mean p-value and place of each of the ``labels``."""
        return self._labels_and_lesions[1]

    @cached_property
    def _labels_and_lesions(self) -> tuple[Nifti1Image, list[Lesion]]:
        mask, anomaly, pvalues = (
            np.asarray(image.dataobj).reshape((*image.shape, 1, 1)[:3])
            for image in (self.mask, self.anomaly, self.pvalues)
        )
        header = self.mask.header.copy()
        labels, lesions = find_lesions(mask, anomaly, pvalues, in_millimetres(self.mask.affine, header))
        header.set_data_dtype(np.min_scalar_type(len(lesions)))
        labels = labels.astype(header.get_data_dtype()).reshape(self.mask.shape)
        return type(self.mask)(labels, self.mask.affine, header), lesions

    @property
    def healed(self) -> Nifti1Image:
        """The scan without what is abnormal, in its own intensities, float32; drawn anew at each call.

        It is the scan itself where the map is below the pixel threshold, outside the foreground and outside the frame.
        Where the map is above twice the threshold, it is what the model would expect there: as coarse as the network's
        pixels, and no brighter than the 98th percentile of the foreground. Between, the two are mixed. Of several
        modalities it is the first.
        """
        return self._draw_healed(0)

    @property
    def healed_modalities(self) -> list[Nifti1Image]:
        """The healed scan of each modality, as `healed` is, in the order of fit."""
        return [self._draw_healed(place) for place in range(self.n_modalities)]

    def _draw_healed(self, modality: int) -> Nifti1Image:
        if self.healing is None:
            raise InputError(f"{self.id} was made without what a healed scan is drawn from. Detect it again.")
        return self.healing(modality)

    def save(
        self,
        folder: str | os.PathLike,
        *,
        overwrite: bool = False,
        healed: bool = True,
        in_bids: bool = False,
    ) -> list[Path]:
        """Write all of it, by the names that ``skmimood score`` gives them.

        Parameters
        ----------
        folder : path
            Made if it does not exist.
        overwrite : bool, default=False
            Replace files of these names.
        healed : bool, default=True
            Write the healed scan too.
        in_bids : bool, default=False
            Write as BIDS derivatives, whose root is the folder: NIfTI below ``sub-<label>/``.

        Returns
        -------
        list of Path
            ``<id>_anomaly.nii.gz``, ``<id>_pvalue.nii.gz``, ``<id>_mask.nii.gz``, ``<id>_lesions.nii.gz`` (labels),
            ``<id>_lesions.csv`` and ``<id>_healed.nii.gz``; images end in ``extension``. Of several modalities
            ``<id>_healed2.nii.gz`` and so on are the healed scans of the others, which BIDS has no names for.

        Raises
        ------
        ScanWriteError
            If one cannot be written, or exists and ``overwrite`` is False: then none is written.
        InputError
            If ``in_bids`` and the scan is not named as ``sub-01_T1w`` is.
        """
        folder = expand(folder)
        paths = result_paths(folder, self.id, healed=healed, extension=self.extension, in_bids=in_bids)
        n_healed = (1 if in_bids else self.n_modalities) if healed else 0
        paths += further_healed(folder, self.id, self.extension, n_healed)
        existing = [path.name for path in paths if os.path.lexists(path)]
        if existing and not overwrite:
            raise ScanWriteError(
                f"{existing[0]} exists already. Pass overwrite=True or choose another folder."
            )
        try:
            paths[0].parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ScanWriteError(
                f"Cannot make {str(folder)!r}: {error.strerror}. Choose another folder."
            ) from None
        images = [
            self.anomaly,
            self.pvalues,
            self.mask,
            self.labels,
            *map(self._draw_healed, range(n_healed)),
        ]
        for path in paths:
            if path.suffix in (".csv", ".tsv"):
                _write_table(self.lesions, path)
            else:
                write_image(images.pop(0), path, overwrite=overwrite)
        return paths


def _write_table(lesions: list[Lesion], path: Path) -> None:
    """Write one line a lesion; tables of BIDS are separated by tabs and begin with an index and a name."""
    is_bids = path.suffix == ".tsv"
    table = io.StringIO()
    writer = csv.writer(table, delimiter="\t" if is_bids else ",", lineterminator="\n")
    writer.writerow(["index", "name", *Lesion._fields[1:]] if is_bids else Lesion._fields)
    for label, *values in lesions:
        names = [label, f"lesion-{label}"] if is_bids else [label]
        writer.writerow([*names, *(f"{value:.6g}" for value in values)])
    with replacing(path) as stream:
        stream.write(table.getvalue().encode())
