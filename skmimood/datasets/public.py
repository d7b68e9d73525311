"""Public data sets as they lie on disk after their own download: which files are scans, and which masks are theirs.

All loaders search the folder with its subfolders, take ``.nii`` and ``.nii.gz``, ignore names with a leading dot, and
read nothing but names. None of them downloads. All raise `InputError` if there are no such files, two scans of one
subject, or masks of some subjects only where a missing mask is no sign of health.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from skmimood.datasets.scan_sets import Origin, ScanSet, find_beside, find_subjects, pair
from skmimood.exceptions import InputError, listing
from skmimood.nifti import file_stem, walk_images
from skmimood.runtime.paths import expand

_BRATS = Origin(
    name="BraTS",
    example="BraTS2021_00000/BraTS2021_00000_t2.nii.gz with BraTS2021_00000_seg.nii.gz (2020, 2021), or "
    "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2w.nii.gz with BraTS-GLI-00000-000-seg.nii.gz (2023)",
    source="The data are given out after registration and agreement to their terms (2021: CC BY-NC-SA 4.0): "
    "https://www.med.upenn.edu/cbica/brats2020/data.html, and https://www.synapse.org/syn51156910 for 2023.",
    licence="terms of the challenge, agreed to on registration",
)
_BRATS_LICENCES = {"brats2021": "CC BY-NC-SA 4.0"}
_BRATS_MODALITIES = {"t1": "_t1|-t1n", "t1ce": "_t1ce|-t1c", "t2": "_t2|-t2w", "flair": "_flair|-t2f"}
# The mask of this one case of BraTS 2020 was published under another name.
_BRATS_MISNAMED = {"BraTS20_Training_355": "W39_1998.09.19_Segm"}

_IXI = Origin(
    name="IXI",
    example="IXI002-Guys-0828-T1.nii.gz",
    source="The data are free under CC BY-SA 3.0: https://brain-development.org/ixi-dataset/.",
    licence="CC BY-SA 3.0",
)
_IXI_MODALITIES = {name: f"[-_]{name}" for name in ("t1", "t2", "pd", "mra")}

_MSLUB = Origin(
    name="MSLUB",
    example="cross_sectional/coregistered/patient01/FLAIR.nii.gz with consensus_gt.nii.gz, or "
    "patient01/patient01_FLAIR.nii.gz with patient01_consensus_gt.nii.gz",
    source="The data are free under CC BY: https://github.com/muschellij2/open_ms_data.",
    licence="CC BY",
)
_MSLUB_MODALITIES = {"flair": "FLAIR", "t1": "T1W", "t1ce": "T1WKS", "t2": "T2W"}

_LGG = Origin(
    name="TCGA-LGG",
    example="TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_flair.nii.gz with TCGA_CS_4941_19960909_seg.nii.gz",
    source="The data are free under CC BY-NC-SA 4.0 as .tif slices, whose FLAIR channel and masks are to be "
    "stacked to volumes first: https://www.kaggle.com/datasets/mateuszbuda/lgg-mri-segmentation.",
    licence="CC BY-NC-SA 4.0",
)


_LUNA16 = Origin(
    name="LUNA16",
    example="subset0/1.3.6.1.4.1.14519.5.2.1.6279.6001.1057566.mhd with its .raw",
    source="The data are free under CC BY 4.0: https://zenodo.org/records/3723295 and "
    "https://zenodo.org/records/4121926.",
    licence="CC BY 4.0",
)

_CT_ICH = Origin(
    name="CT-ICH",
    example="ct_scans/049.nii with masks/049.nii, or CT049/CT049_ct.nii.gz with CT049_seg.nii.gz, if there are masks",
    source="The data are given out after registration under the PhysioNet Restricted Health Data License 1.5.0: "
    "https://physionet.org/content/ct-ich/.",
    licence="PhysioNet Restricted Health Data License 1.5.0",
)


def load_brats(
    root: str | os.PathLike, *, modality: str = "t2", labels: Collection[int] | None = None
) -> ScanSet:
    """Find the scans of BraTS 2020, 2021 or 2023 (adult glioma), by what is on disk.

    Skull-stripped scans of 240 x 240 x 155 voxels of 1 mm, given out after registration and agreement to the terms of
    the challenge; those of 2021 are CC BY-NC-SA 4.0.

    Parameters
    ----------
    root : str or path
        Folder with one release, ``BraTS20_Training_001/BraTS20_Training_001_t2.nii`` (2020),
        ``BraTS2021_00000/BraTS2021_00000_t2.nii.gz`` (2021) or
        ``BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2w.nii.gz`` (2023), and ``_seg`` or ``-seg`` beside them. Two
        releases are refused: later ones hold the patients of earlier ones under other names.
    modality : {"t2", "flair", "t1", "t1ce"}, default="t2"
        Contrast. In 2023 these are called t2w, t2f, t1n and t1c.
    labels : collection of int, optional
        Mask values that count as anomalous; by default all above 0, the whole tumour. Necrosis is 1 and oedema
        2 in all releases; the enhancing tumour is 4 in 2020 and 2021 but 3 in 2023.

    Returns
    -------
    ScanSet
        Its subjects are the cases, such as ``BraTS2021_00000``. In ``BraTS-GLI-00000-000`` the last three
        digits are the visit of a patient: two such cases are not independent. The mask of
        ``BraTS20_Training_355``, published as ``W39_1998.09.19_Segm.nii``, is found.

    References
    ----------
    Menze et al., "The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS)", IEEE TMI 34(10), 2015.
    Baid et al., "The RSNA-ASNR-MICCAI BraTS 2021 Benchmark on Brain Tumor Segmentation and Radiogenomic
    Classification", arXiv:2107.02314.
    """
    modality, ending = _choose(modality, _BRATS_MODALITIES)
    found = find_subjects(root, _BRATS, _named(r"brats(\d+_|-[a-z]+-).+", ending))
    releases = sorted({re.split(r"_|-\d", subject)[0] for subject, _ in found}, key=str.lower)
    if len(releases) > 1:
        raise InputError(
            f"{os.fspath(root)!r} holds cases of {listing(map(repr, releases))}. Later releases hold the patients of "
            "earlier ones under other names: pass the folder of one release."
        )
    origin = dataclasses.replace(
        _BRATS, name=releases[0], licence=_BRATS_LICENCES.get(releases[0].lower(), _BRATS.licence)
    )

    def mask_of(subject: str, scan: Path) -> Path | None:
        return find_beside(scan, f"{subject}_seg", f"{subject}-seg", _BRATS_MISNAMED.get(subject))

    return pair(found, origin, modality, mask_of, labels=labels, all_or_none=True)


def load_ixi(root: str | os.PathLike, *, modality: str = "t1") -> ScanSet:
    """Find the scans of IXI: healthy adults from three London hospitals, with skull, not registered; CC BY-SA 3.0.

    Parameters
    ----------
    root : str or path
        Folder with files such as ``IXI002-Guys-0828-T1.nii.gz`` (or ``_T1``), in subfolders or not.
    modality : {"t1", "t2", "pd", "mra"}, default="t1"
        Contrast.

    Returns
    -------
    ScanSet
        Its subjects are such as ``IXI002-Guys-0828``. IXI has no masks; ``_brainmask``, and ``_seg`` for
        synthetic lesions, are found where they lie beside a scan: ``IXI002-Guys-0828_brainmask.nii.gz``.
    """
    modality, ending = _choose(modality, _IXI_MODALITIES)
    found = find_subjects(root, _IXI, _named(r"IXI\d+-[a-z]+-\d+", ending))
    return pair(found, _IXI, modality, _ending_in("_seg"), _ending_in("_brainmask"))


def load_mslub(root: str | os.PathLike, *, modality: str = "flair") -> ScanSet:
    """Find the cross-sectional scans of MSLUB: 30 patients with multiple sclerosis, masks by consensus; CC BY.

    Parameters
    ----------
    root : str or path
        Folder with files such as ``cross_sectional/coregistered/patient01/FLAIR.nii.gz`` (as on GitHub) or
        ``patient01/patient01_FLAIR.nii.gz`` (as first published). Scans under ``raw`` are taken only if `root`
        holds no others: they have no brain masks, and all but FLAIR lie on other grids than the lesion masks.
    modality : {"flair", "t1", "t1ce", "t2"}, default="flair"
        Contrast. The files are called FLAIR, T1W, T1WKS and T2W.

    Returns
    -------
    ScanSet
        Its subjects are such as ``patient01``, its masks ``consensus_gt``, its brain masks ``brainmask``. The
        longitudinal scans, whose masks show changes between two visits, are left out.

    References
    ----------
    Lesjak et al., "A Novel Public MR Image Dataset of Multiple Sclerosis Patients With Lesion Segmentations
    Based on Multi-rater Consensus", Neuroinformatics 16, 2018. doi:10.1007/s12021-017-9348-7
    """
    modality, name = _choose(modality, _MSLUB_MODALITIES)

    def subject_of(path: Path) -> str | None:
        folders = [part for part in path.parts[:-1] if re.fullmatch(r"patient\d+", part)]
        return folders[-1] if folders and file_stem(path) in (name, f"{folders[-1]}_{name}") else None

    def beside(ending: str) -> Callable[[str, Path], Path | None]:
        return lambda subject, scan: find_beside(scan, ending, f"{subject}_{ending}")

    found = find_subjects(root, _MSLUB, subject_of)
    folder = expand(root)
    processed = [(subject, scan) for subject, scan in found if "raw" not in scan.relative_to(folder).parts]
    return pair(
        processed or found, _MSLUB, modality, beside("consensus_gt"), beside("brainmask"), all_or_none=True
    )


def load_lgg(root: str | os.PathLike) -> ScanSet:
    """Find the FLAIR scans of TCGA-LGG with the tumour masks of Buda et al., stacked to volumes; CC BY-NC-SA 4.0.

    Parameters
    ----------
    root : str or path
        Folder with files such as ``TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_flair.nii.gz`` and ``_seg``.
        The set is published as ``.tif`` slices, which have to be stacked to such volumes first.

    Returns
    -------
    ScanSet
        Its subjects are such as ``TCGA_CS_4941_19960909``.

    References
    ----------
    Buda et al., "Association of genomic subtypes of lower-grade gliomas with shape features automatically
    extracted by a deep learning algorithm", Computers in Biology and Medicine 109, 2019.
    """
    found = find_subjects(root, _LGG, _named(r"TCGA_\w+", "_flair"))
    return pair(found, _LGG, "flair", _ending_in("_seg"), all_or_none=True)


def load_ct_ich(root: str | os.PathLike) -> ScanSet:
    """Find the head CT scans of CT-ICH, of patients with brain injury with and without intracranial haemorrhage.

    Given out by PhysioNet after registration, in Hounsfield units; other copies hold pictures in the brain window.
    Both have skull and head-rest: pass ``mask="ct-brain"`` to `skmimood.ScanDetector`.

    Parameters
    ----------
    root : str or path
        Folder with files such as ``ct_scans/049.nii`` and ``masks/049.nii`` (as published), or
        ``CT049/CT049_ct.nii.gz`` and, if there are masks, ``CT049_seg.nii.gz``.

    Returns
    -------
    ScanSet
        Its subjects are such as ``049`` or ``CT049``. Without masks, none says which are healthy: a table
        ``slices.csv`` tells the kinds of haemorrhage in every slice, see :func:`skmimood.datasets.read_slice_kinds`.

    References
    ----------
    Hssayeni et al., "Intracranial Hemorrhage Segmentation Using a Deep Convolutional Model", Data 5(1), 2020.
    doi:10.3390/data5010014
    """
    named = _named(r"CT\d+", "_ct")

    def subject_of(path: Path) -> str | None:
        stem = file_stem(path)
        return stem if path.parent.name == "ct_scans" and stem.isdigit() else named(path)

    def mask_of(subject: str, scan: Path) -> Path | None:
        published = scan.parent.with_name("masks") / subject
        return find_beside(published, subject) or find_beside(scan, f"{subject}_seg")

    found = find_subjects(root, _CT_ICH, subject_of)
    return pair(found, _CT_ICH, "ct", mask_of, all_or_none=True)


def load_luna16(root: str | os.PathLike) -> ScanSet:
    """Find the chest CT scans of LUNA16.

    Parameters
    ----------
    root : str or path
        Folder with files such as ``subset0/1.3.6.1.4.1.14519.5.2.1.6279.6001.105756658031515062000744821260.mhd``, each
        with its ``.raw`` beside it.

    Returns
    -------
    ScanSet
        Its subjects are the series, by which :func:`skmimood.datasets.read_nodules` names the nodules of
        ``annotations.csv``; :func:`skmimood.datasets.nodule_mask` draws them on the grid of a scan. There are no
        mask files, so None says nothing of health. Reading the scans takes SimpleITK (``skmimood[itk]``).

    References
    ----------
    Setio et al., "Validation, comparison, and combination of algorithms for automatic detection of pulmonary nodules in
    computed tomography images: the LUNA16 challenge", Medical Image Analysis 42, 2017. doi:10.1016/j.media.2017.06.015
    """
    found = find_subjects(root, _LUNA16, _named(r"[0-2](\.\d+)+", ""))
    return pair(found, _LUNA16, "ct", lambda subject, scan: None)


def load_image_mask_folder(
    root: str | os.PathLike,
    *,
    modality: str | None = None,
    mask_suffix: str = "_seg",
    brain_mask_suffix: str | None = None,
    labels: Collection[int] | None = None,
) -> ScanSet:
    """Find scans and masks that are named alike, in one folder or in a folder for each subject.

    Parameters
    ----------
    root : str or path
        Folder with files such as ``sub-01_T2.nii.gz`` and ``sub-01_seg.nii.gz``.
    modality : str, optional
        What the names of scans end in after the subject, such as ``"T2"``, in any case. By default every image
        that is not a mask is a scan, and its whole name the subject; masks that belong to no scan are refused.
    mask_suffix : str, default="_seg"
        What a mask has after the subject, or after the whole name of the scan. A scan without a mask passes
        for healthy.
    brain_mask_suffix : str, optional
        The same for brain masks; by default there are none.
    labels : collection of int, optional
        Mask values that count as anomalous; by default all above 0.

    Returns
    -------
    ScanSet
        Called as the folder is.
    """
    if not mask_suffix:
        raise InputError("mask_suffix must be what the names of masks end in, such as '_seg'; got ''.")
    contrast = (modality or "").lstrip("-_")
    ending = f"[-_]{re.escape(contrast)}" if contrast else ""
    origin = Origin(
        name=expand(root).absolute().name,
        example=f"sub-01_{contrast or 'T2'}.nii.gz with sub-01{_with_separator(mask_suffix)}.nii.gz",
        source="Check the path, modality and mask_suffix.",
        licence="not known",
    )
    suffixes = [_with_separator(suffix) for suffix in (mask_suffix, brain_mask_suffix) if suffix]
    scan_named = _named(".+", ending)
    found = find_subjects(
        root, origin, lambda path: None if file_stem(path).endswith(tuple(suffixes)) else scan_named(path)
    )
    brain_mask_of = _ending_in(suffixes[1]) if brain_mask_suffix else (lambda subject, scan: None)
    scans = pair(found, origin, modality, _ending_in(suffixes[0]), brain_mask_of, labels=labels)
    if modality is None:
        _refuse_orphans(expand(root), suffixes[0], scans)
    return scans


def _choose(modality: str, known: Mapping[str, str]) -> tuple[str, str]:
    """Return a modality in lower case and what the names of its files end in."""
    if not isinstance(modality, str) or modality.lower() not in known:
        raise InputError(f"modality must be one of {', '.join(known)}; got {modality!r}.")
    return modality.lower(), known[modality.lower()]


def _named(subject: str, ending: str) -> Callable[[Path], str | None]:
    """Return a function from a path to its subject: both parts of the name are regular expressions."""
    pattern = re.compile(f"(?P<subject>{subject})(?:{ending})", re.IGNORECASE)

    def subject_of(path: Path) -> str | None:
        match = pattern.fullmatch(file_stem(path))
        return match and match["subject"]

    return subject_of


def _ending_in(suffix: str) -> Callable[[str, Path], Path | None]:
    """Return a function from a subject and its scan to the image that ends in `suffix` beside it."""
    return lambda subject, scan: find_beside(scan, subject + suffix, file_stem(scan) + suffix)


def _with_separator(suffix: str) -> str:
    return suffix if suffix[:1] in "-_." else f"_{suffix}"


def _refuse_orphans(folder: Path, suffix: str, scans: ScanSet) -> None:
    paired = {*scans.masks, *scans.brain_masks}
    orphans = sorted(
        path.name for path in walk_images(folder) if file_stem(path).endswith(suffix) and path not in paired
    )
    if orphans:
        raise InputError(
            f"{listing(map(repr, orphans))} belong to no scan of the same name. Pass modality=, which the names of the "
            "scans end in, or remove these masks."
        )
