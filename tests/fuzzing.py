"""Damage scans and saved models at random: there must be a result, or an error of skmimood's own.

``python tests/fuzzing.py --mutations 20000`` prints how many mutations were survived. They are the same every time, so
``--only 17`` repeats the one that failed, with its traceback. `test_fuzz_and_kill.py` makes some.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from dicom_series import write_series
from golden import MODEL as NETWORKS
from PIL import Image
from sklearn.pipeline import Pipeline
from toy_scans import MedianOfChannels, brief_job, head, make, pair, save_model_of_toys

from skmimood.exceptions import ScanReadError, SkmimoodError, SkmimoodWarning
from skmimood.jobs.fitting import fit_model
from skmimood.nifti import write_image
from skmimood.persistence import _content_hash
from skmimood.scans import ScanDetector

SECONDS = 10  # for a mutation
MEMORY = 2**30  # bytes beyond those that the program takes
AFFINE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.1) * [5.0, 5.0, 8.0], [-30, -30, -20])
RNG = np.random.Generator


class Case(NamedTuple):
    """A scan or model, how one of its files is damaged, and what is then done with it."""

    title: str
    path: Path
    damage: Callable[[Path, RNG], None]
    use: Callable[[Path], str]
    part: str = ""  # the file of a folder; by default any


# Damage


def damage_bytes(file: Path, rng: RNG) -> None:
    file.write_bytes(damaged(file.read_bytes(), rng))


def damage_inside(file: Path, rng: RNG) -> None:
    """Damage what a gzip file holds; its checksum is sound."""
    file.write_bytes(gzip.compress(damaged(gzip.decompress(file.read_bytes()), rng), 1, mtime=0))


def damage_arrays(file: Path, rng: RNG) -> None:
    """Damage the arrays of a model; its checksums are sound."""
    damage_bytes(file, rng)
    manifest = json.loads(file.with_name("manifest.json").read_bytes())
    manifest["arrays_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    write_signed(file.with_name("manifest.json"), manifest)


def change_values(file: Path, rng: RNG) -> None:
    """Change or remove one to three values of a manifest; its checksum is sound."""
    manifest = json.loads(file.read_bytes())
    others = [None, True, 0, -1, 2**40, 0.5, 1e300, float("nan"), "", "x", [], [1, 2], {}, {"a": 1}]
    for _ in range(rng.integers(1, 4)):
        places = list(places_in(manifest))
        node, key = places[rng.integers(len(places))]
        if rng.random() < 0.2:
            del node[key]
        else:
            node[key] = others[rng.integers(len(others))]
    write_signed(file, manifest)


def places_in(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each list or dictionary of a JSON value with each of its keys."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield node, key
        if isinstance(value, (dict, list)):
            yield from places_in(value)


def write_signed(file: Path, manifest: dict) -> None:
    manifest.pop("sha256", None)
    file.write_text(json.dumps({"sha256": _content_hash(manifest), **manifest}))


def damaged(content: bytes, rng: RNG) -> bytes:
    """Return bytes with one to eight changes, half of them at the beginning, where headers are."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        size = min(len(changed), 600) if rng.random() < 0.5 else len(changed)
        start = int(rng.integers(size)) if size else 0
        length = int(rng.choice([1, 2, 4, 8, 64, 1000]))
        match rng.integers(7):
            case 0 if size:
                changed[start] ^= 1 << int(rng.integers(8))
            case 1:
                changed[start : start + 1] = rng.bytes(1)
            case 2:
                number = odd_number(rng)
                changed[start : start + len(number)] = number
            case 3:
                del changed[start : start + length]
            case 4:
                changed[start:start] = rng.bytes(length)
            case 5:
                changed[start:start] = changed[start : start + length]
            case 6 if rng.random() < 0.2:
                del changed[start:]
    return bytes(changed)


def odd_number(rng: RNG) -> bytes:
    """Return a number that few programs think of, as headers store numbers."""
    kind = np.dtype(str(rng.choice(["i1", "<i2", ">i2", "<i4", ">i4", "<i8", "<f4", ">f4", "<f8"])))
    if kind.kind == "f":
        return np.array(rng.choice([0, -1, np.nan, np.inf, -np.inf, 1e-30, 1e30]), kind).tobytes()
    limits = np.iinfo(kind)
    return np.array(rng.choice([0, 1, -1, limits.min, limits.max, limits.max // 2]), kind).tobytes()


def write_pair(folder: Path, images: tuple[nib.Nifti1Image, nib.Nifti1Image], subject: str = "") -> None:
    folder.mkdir(exist_ok=True)
    for image, modality in zip(images, ("T1w", "FLAIR"), strict=True):
        image.to_filename(folder / f"{subject}{modality}.nii")


# What is damaged, and what is done with it


class Subjects:
    """Sound scans of all formats and saved models, and a place beside them for the damaged ones."""

    def __init__(self, folder: Path) -> None:
        self.sound, self.broken = folder / "sound", folder / "broken"
        self.sound.mkdir()
        model = save_model_of_toys(folder)
        self.detector = ScanDetector.load(model).set_params(mask="none", max_bytes=2**26)
        self.write_scans(head(3, shape=(12, 13, 5))[0].astype(np.int16))
        self.cases = [
            Case(path.name, path, damage_bytes, self.map_scan) for path in sorted(self.sound.iterdir())
        ]
        self.cases += [
            Case(f"{name}, inside", self.sound / name, damage_inside, self.map_scan)
            for name in ("scan.nii.gz", "scan.mgz")
        ]
        self.add_modalities(folder)
        self.open_model(NETWORKS)  # what that imports is no part of a mutation
        for path, use in ((model, self.use_model), (NETWORKS, self.open_model)):
            name = "networks" if path == NETWORKS else "toy"
            shutil.copytree(path, self.sound / name)
            for part, damage in (("manifest.json", change_values), ("arrays.safetensors", damage_arrays)):
                self.cases.append(Case(f"{name}, {part}", self.sound / name, damage_bytes, use, part))
                self.cases.append(Case(f"{name}, {part}, signed", self.sound / name, damage, use, part))

    def add_modalities(self, folder: Path) -> None:
        """Add a scan of two modalities, one of which is damaged, and networks that read both."""
        self.detector_of_pairs = make(pipeline=Pipeline([("restorer", MedianOfChannels())]))
        self.detector_of_pairs.fit([pair(seed) for seed in range(4)])
        write_pair(self.sound / "modalities", pair(20))
        for seed in range(4):
            write_pair(folder / "pairs", pair(seed), f"sub-{seed}_")
        networks = self.sound / "networks of modalities"
        fit_model([folder / "pairs"], networks, brief_job(modality="T1w,FLAIR"), lambda line: None)
        self.cases += [
            Case("two modalities", self.sound / "modalities", damage_bytes, self.map_pair),
            Case("networks of modalities", networks, change_values, self.use_networks, "manifest.json"),
        ]

    def write_scans(self, voxels: np.ndarray) -> None:
        image = nib.Nifti1Image(voxels, AFFINE)
        for extension in (".nii", ".nii.gz", ".mgz", ".nrrd", ".mha"):
            write_image(image, self.sound / f"scan{extension}")
        nib.Nifti2Image(voxels, AFFINE).to_filename(self.sound / "scan2.nii")
        for extension in ("png", "jpg", "tif"):
            Image.fromarray((voxels[..., 2] / 4).astype(np.uint8)).save(self.sound / f"scan.{extension}")
        write_series(self.sound / "series", voxels[..., :3])

    def map_scan(self, path: Path) -> str:
        result = self.detector.detect_scan(path)
        for image in (result.anomaly, result.pvalues, result.mask):
            assert image.shape == result.scan.shape
            assert np.isfinite(image.affine).all()
            assert not np.isinf(image.get_fdata()).any()
        assert np.isfinite([result.score, result.pvalue]).all()
        return "mapped"

    def map_pair(self, folder: Path) -> str:
        result = self.detector_of_pairs.detect_scan((folder / "T1w.nii", folder / "FLAIR.nii"))
        assert result.anomaly.shape == result.scan.shape
        return "mapped"

    def use_networks(self, path: Path) -> str:
        ScanDetector.load(path).detect_scan(
            (self.sound / "modalities" / "T1w.nii", self.sound / "modalities" / "FLAIR.nii")
        )
        return "used"

    def open_model(self, path: Path) -> str:
        ScanDetector.load(path)
        return "opened"

    def use_model(self, path: Path) -> str:
        ScanDetector.load(path).detect_scan(self.sound / "scan.nii")
        return "used"

    def mutate(self, number: int) -> str:
        """Make one mutation, and say what came of it."""
        case, rng = self.case(number), np.random.default_rng(number)
        shutil.rmtree(self.broken, ignore_errors=True)
        self.broken.mkdir()
        path = self.broken / case.path.name
        (shutil.copytree if case.path.is_dir() else shutil.copy)(case.path, path)
        files = [path] if path.is_file() else sorted(path.glob(case.part or "*"))
        case.damage(files[rng.integers(len(files))], rng)
        try:
            return case.use(path)
        except SkmimoodError as error:
            tells_of_a_path = isinstance(error, ScanReadError) and str(self.broken) in str(error)
            return f"with a path: {error}" if tells_of_a_path else "refused"

    def case(self, number: int) -> Case:
        return self.cases[number % len(self.cases)]


# Trying them


def work(subjects: Subjects, numbers: range, pipe: int) -> None:
    """Make mutations within limits, and tell of each before and after."""
    with open("/proc/self/statm") as pages:
        taken = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where libraries in C tell of damage
    for number in numbers:
        os.write(pipe, f"{number}\t".encode())
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of computing, which then ends the process
        try:
            outcome = subjects.mutate(number)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            outcome = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}: {error}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(pipe, outcome.replace("\n", " ").encode() + b"\n")


def outcomes(subjects: Subjects, n_mutations: int) -> Iterator[tuple[int, str]]:
    """Make mutations in a process of their own, another one where that has died; yield what came of each."""
    number = -1
    while number + 1 < n_mutations:
        receiver, sender = os.pipe()
        if (child := os.fork()) == 0:
            work(subjects, range(number + 1, n_mutations), sender)
            os._exit(0)
        os.close(sender)
        with open(receiver) as lines:
            for line in lines:
                number = int(line.partition("\t")[0])
                if line.endswith("\n"):
                    yield number, line.partition("\t")[2].rstrip("\n")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            yield number, f"died of {signal.Signals(-status).name if status < 0 else status}"


def main(n_mutations: int) -> int:
    """Print what came of each kind of mutation; return how many were not survived."""
    table: Counter[tuple[str, str]] = Counter()
    n_survived = 0
    with tempfile.TemporaryDirectory() as folder:
        subjects = Subjects(Path(folder))
        for number, outcome in outcomes(subjects, n_mutations):
            title, is_survived = subjects.case(number).title, " " not in outcome
            n_survived += is_survived
            table[title, outcome if is_survived else "FAILED"] += 1
            if not is_survived:
                print(f"{number} ({title}): {outcome}", flush=True)
            if number % 500 == 499:
                print(f"{n_survived} of {number + 1} survived so far", file=sys.stderr)
    for (title, outcome), count in sorted(table.items()):
        print(f"{title:38}{outcome:10}{count:6}")
    print(f"{n_survived} of {n_mutations} mutations survived")
    return n_mutations - n_survived


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=20000)
    parser.add_argument("--only", type=int, help="number of the one to make")
    chosen = parser.parse_args()
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", module="torch")  # of networks that a forged manifest describes
    warnings.simplefilter("ignore", SkmimoodWarning)
    if chosen.only is None:
        sys.exit(main(chosen.mutations) > 0)
    with tempfile.TemporaryDirectory() as folder:
        print(Subjects(Path(folder)).mutate(chosen.only))
