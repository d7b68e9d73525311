"""Data sets in the layout of BIDS: which of their files are scans, and what results of a scan are called there."""

from __future__ import annotations

import json
import re
from pathlib import Path

from skmimood.exceptions import InputError
from skmimood.nifti.names import Source, entities, file_stem

_ANATOMY = "anat"
_SCAN_NAME = re.compile(
    r"(sub-[a-zA-Z0-9+]+)(?:_(ses-[a-zA-Z0-9+]+))?(?:_[a-zA-Z0-9]+-[a-zA-Z0-9+]+)*_([a-zA-Z0-9]+)"
)


def is_data_set(folder: Path) -> bool:
    """Tell whether a folder is a BIDS data set with subjects of its own: derivatives have those of another."""
    try:
        about = json.loads((folder / "dataset_description.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("DatasetType") != "derivative"


def of_subjects(root: Path, files: list[Path]) -> list[Path]:
    """Return the files of a data set that lie in the folders of its subjects, not in derivatives or source data."""
    return [path for path in files if path.relative_to(root).parts[0].startswith("sub-")]


def anatomical(scans: list[Source], root: Path) -> list[Source]:
    """Return the anatomical scans of a data set, or all if there is none; `InputError` if they are of several kinds."""
    chosen = [scan for scan in scans if Path(str(scan)).parent.name == _ANATOMY] or scans
    kinds = sorted({file_stem(str(scan)).rpartition("_")[2] for scan in chosen})
    if len(kinds) > 1:
        raise InputError(
            f"The data set {root.name!r} holds {', '.join(kinds)}. Choose one of them by the ending of the names "
            f"(modality, --modality {kinds[0]}), or several, which are one scan then ({','.join(kinds)})."
        )
    return chosen


def result_names(scan: str) -> tuple[str, ...]:
    """Return what the results of a scan are called in a data set of derivatives, below its root.

    These are its anomaly map, p-values, mask, numbered lesions, their table, and the healed scan. `InputError` if the
    scan is not named by BIDS.
    """
    if not (match := _SCAN_NAME.fullmatch(scan)):
        raise InputError(
            f"{scan!r} is not named as in BIDS (sub-01_T1w, sub-01_ses-1_T1w). Rename it, or write plain results."
        )
    subject, session, suffix = match.groups()
    start = "/".join([subject, *([session] if session else []), _ANATOMY, "_".join(entities(scan))])
    endings = ("stat-anomaly_statmap", "stat-p_statmap", "label-lesion_roi", "desc-lesions_dseg")
    images = [f"{start}_{ending}.nii.gz" for ending in (*endings, f"desc-healed_{suffix}")]
    return (*images[:4], f"{start}_{endings[3]}.tsv", images[4])


def description(version: str) -> dict[str, object]:
    """Return the content of ``dataset_description.json`` of results."""
    return {
        "Name": "Anomaly maps, p-values and lesion masks",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "skmimood", "Version": version}],
    }
