"""Whether scans unlike the training data are flagged: false alarms and misses of `ScanDetector`'s check, by kind."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks import records
from benchmarks.data.sources import data_root
from benchmarks.report.domain import N_DRAWS, render
from skmimood.datasets import write_phantom_dataset
from skmimood.exceptions import InputError
from skmimood.nifti import DEFAULT_MAX_BYTES
from skmimood.scans.cohort import ScanReader, measure
from skmimood.scans.domain import ScanFeatures, learn_domain
from skmimood.scans.sources import ListedScan

_SIZES = (10, 20, 90)  # healthy scans that a model is fitted on
_HELD_OUT = 0.15  # of them, as in ScanDetector
_EVERY = 5  # of the healthy scans, one is changed in all ways
_HEALTHY = "healthy, unseen"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", help="folder that holds ixi/, ms/, lgg/, ct/ (default: $SKMIMOOD_DATA)")
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="folder of the table")


def run(arguments: argparse.Namespace) -> None:
    root = data_root(arguments.root)
    if not (root / "ixi").is_dir():
        raise InputError(f"There is no folder ixi in {str(root)!r}. Pass the folder that holds it as --root.")
    records.commit()  # as it is now, kept
    others = list(_features_of_folders(root))
    cohorts = {"IXI T1, brains": "_brainmask", "IXI T1, with skull": "auto"}
    rows: list[dict[str, Any]] = []
    for name, mask in cohorts.items():
        rows += _rows(name, list(_features_of_ixi(root / "ixi", mask)), others)
    phantoms = {f"phantom {name.upper()}": list(_features_of_phantoms(name)) for name in ("t1", "t2")}
    for own, features in phantoms.items():
        others = [(name, one) for name in phantoms if name != own for kind, one in phantoms[name] if not kind]
        rows += _rows(own, features, others)
    records.replace_rows(arguments.results / "domain.csv", rows, key=("cohort", "n_fit", "kind"))
    print(render(arguments.results))


def _rows(
    cohort: str, own: Sequence[tuple[str, ScanFeatures]], others: Sequence[tuple[str, ScanFeatures]]
) -> Iterator[dict[str, Any]]:
    """Fit the check on some healthy scans, several times, and yield which share of every other kind is flagged."""
    healthy = [one for kind, one in own if not kind]
    rest = [(kind, one) for kind, one in own if kind] + list(others)
    for n_fit in _SIZES:
        if n_fit >= len(healthy):
            continue
        flagged: dict[str, list[bool]] = {}
        for seed in range(N_DRAWS):
            order = np.random.default_rng(seed).permutation(len(healthy))
            chosen = {str(index): healthy[index] for index in order[:n_fit]}
            n_held_out = max(1, round(_HELD_OUT * n_fit))
            held_out = {name: chosen.pop(name) for name in list(chosen)[:n_held_out]}
            domain, _ = learn_domain(chosen, held_out)
            unseen = [(_HEALTHY, healthy[index]) for index in order[n_fit:]]
            for kind, one in [*unseen, *rest]:
                flagged.setdefault(kind, []).append(bool(domain.remarks(one)))
        for kind, told in flagged.items():
            yield {
                "cohort": cohort, "n_fit": n_fit, "kind": kind, "n_scans": len(told) // N_DRAWS,
                "flagged": float(np.mean(told)), "commit": records.commit(),
            }  # fmt: skip


def _features_of_ixi(folder: Path, mask: str) -> Iterator[tuple[str, ScanFeatures]]:
    for number, path in enumerate(sorted(folder.glob("*_T1.nii.gz"))):
        brain = None if mask == "auto" else nib.load(path.with_name(path.name.replace("_T1", mask)))
        yield from _with_changes(nib.load(path), brain, is_changed=number % _EVERY == 0)


def _features_of_folders(root: Path) -> Iterator[tuple[str, ScanFeatures]]:
    for kind, pattern in {
        "LGG FLAIR": "lgg/*/*_flair.nii.gz", "CT": "ct/*/*_ct.nii.gz", "MS FLAIR": "ms/*/*_flair.nii.gz",
        "MS T1": "ms/*/*_t1.nii.gz", "MS T2": "ms/*/*_t2.nii.gz",
    }.items():  # fmt: skip
        for path in sorted(root.glob(pattern)):
            yield kind, _features(nib.load(path), None)


def _features_of_phantoms(modality: str) -> Iterator[tuple[str, ScanFeatures]]:
    with tempfile.TemporaryDirectory() as folder:
        shape = {"n_healthy": 40, "n_lesions": 0, "size": 64, "n_slices": 24}
        made = write_phantom_dataset(Path(folder) / "phantom", **shape, modality=modality, random_state=0)
        for number, path in enumerate(made.healthy):
            yield from _with_changes(nib.load(path), None, is_changed=number % _EVERY == 0)


def _with_changes(scan: Any, brain: Any, *, is_changed: bool) -> Iterator[tuple[str, ScanFeatures]]:
    """Yield the features of a scan, and under the name of the change those of its changed copies."""
    yield "", _features(scan, brain)
    if not is_changed:
        return
    # Copies lie with axes to the right, front and top, so that each change is the same in the patient.
    scan = nib.as_closest_canonical(scan)
    data, spacing = scan.get_fdata(), nib.affines.voxel_sizes(scan.affine)
    inside = np.ones(data.shape, bool)
    if brain is not None:
        inside = np.asarray(nib.as_closest_canonical(brain).dataobj) > 0
    x, y, z = (side // 2 for side in data.shape)
    inverted = np.where(inside, data[inside].max() - data, 0)
    changes: dict[str, tuple[np.ndarray, np.ndarray, tuple[float, float, float]]] = {
        "inverted": (inverted, inside, (1, 1, 1)),
        "left and right exchanged": (data[::-1], inside[::-1], (1, 1, 1)),
        "front and back exchanged": (data[:, ::-1], inside[:, ::-1], (1, 1, 1)),
        "upside down": (data[:, :, ::-1], inside[:, :, ::-1], (1, 1, 1)),
        "turned by 90 degrees in the slices": (np.rot90(data), np.rot90(inside), (1, 1, 1)),
        "axes in another order": (data.transpose(2, 0, 1), inside.transpose(2, 0, 1), (1, 1, 1)),
        "a quarter of the head": (data[:x, :y], inside[:x, :y], (1, 1, 1)),
        "the upper half": (data[:, :, z:], inside[:, :, z:], (1, 1, 1)),
        "half the resolution": (data[::2, ::2], inside[::2, ::2], (2, 2, 1)),
        "voxels said to be of twice the size": (data, inside, (2, 2, 2)),
    }
    for kind, (voxels, part, factors) in changes.items():
        affine = np.diag([*(spacing * factors), 1.0])
        image = nib.Nifti1Image(np.ascontiguousarray(voxels, np.float32), affine)
        mask = None if brain is None else nib.Nifti1Image(np.ascontiguousarray(part, np.uint8), affine)
        yield kind, _features(image, mask)


def _features(scan: Any, brain: Any) -> ScanFeatures:
    reader = ScanReader("auto", DEFAULT_MAX_BYTES, volume=None, max_invalid=1.0, plane="axial")
    return measure(reader.read(ListedScan("scan", scan, brain_mask=brain)), "axial")
