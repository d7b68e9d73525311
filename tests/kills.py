"""Kill ``fit``, ``score`` and saving at random moments: what is left must be whole, and what resumes as if unbroken.

``python tests/kills.py --kills 20`` prints how many kills were survived. `test_fuzz_and_kill.py` makes some.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import joblib
import matplotlib
import numpy as np
from safetensors.numpy import load_file
from toy_scans import brief_job, image

from skmimood.exceptions import SkmimoodWarning
from skmimood.jobs.fitting import fit_model
from skmimood.jobs.scoring import ScoreJob, score_scans
from skmimood.nifti import read_scan, write_image
from skmimood.scans import ScanDetector

TICK = 1 / os.sysconf("SC_CLK_TCK")
AFFINE = np.diag([4.0, 4.0, 5.0, 1.0])
FILE_EVENTS = ("open", "os.", "shutil.", "fcntl.", "tempfile.")  # of Python's audit hooks


# Work that is killed


class Fit:
    """A training of networks of a few weights, and the model that is saved of it."""

    def __init__(self, folder: Path) -> None:
        self.healthy = folder / "healthy"
        write_scans(self.healthy, range(4))

    def run(self, folder: Path) -> None:
        fit_model([self.healthy], folder / "model", brief_job(resume=True), lambda line: None)

    def prepare(self, folder: Path) -> None:
        """Nothing is there before."""

    def check_rest(self, folder: Path) -> None:
        if (folder / "model").exists():
            ScanDetector.load(folder / "model")

    def result(self, folder: Path) -> dict[str, bytes]:
        ScanDetector.load(folder / "model")
        return contents(folder)


class Score:
    """The scoring of three scans, with all that is written for each."""

    def __init__(self, folder: Path) -> None:
        self.model, self.scans = folder / "scorer" / "model", folder / "scans"
        Fit(folder).run(self.model.parent)
        write_scans(self.scans, range(20, 23))

    def prepare(self, folder: Path) -> None:
        """Nothing is there before."""

    def run(self, folder: Path) -> None:
        job = ScoreJob(resume=True, healed=True, viewer="all", device="cpu")
        score_scans([self.scans], self.model, folder / "out", job, lambda line: None)

    def check_rest(self, folder: Path) -> None:
        if (status := folder / "out" / "status.json").exists():
            for line in json.loads(status.read_text())["scans"]:
                assert line["status"] == "ok"
                assert len(list(status.parent.glob(f"{line['id']}_*"))) == 6, line["id"]

    def result(self, folder: Path) -> dict[str, bytes]:
        """Return the files but for what tells of times: tables, report and pages."""
        found = contents(folder)
        assert {"out/status.json", "out/scores.csv", "out/report.html", "out/sub-20_T1.html"} <= set(found)
        return {
            name: b"" if name.endswith((".html", ".json", "scores.csv")) else found[name] for name in found
        }


class Save:
    """A model that takes the place of another."""

    def __init__(self, folder: Path) -> None:
        self.old, self.new = folder / "scorer" / "model", folder / "other"
        self.detector = ScanDetector.load(self.old)
        self.detector.pixel_threshold_ *= 2
        self.detector.save(self.new)

    def prepare(self, folder: Path) -> None:
        shutil.copytree(self.old, folder / "model")

    def run(self, folder: Path) -> None:
        self.detector.save(folder / "model", overwrite=True)

    def check_rest(self, folder: Path) -> None:
        ScanDetector.load(folder / "model")
        assert contents(folder / "model") in (contents(self.old), contents(self.new))

    def result(self, folder: Path) -> dict[str, bytes]:
        for rest in folder.glob(".model-*"):  # nobody else saves here
            shutil.rmtree(rest)
        return contents(folder)


def write_scans(folder: Path, seeds: range) -> None:
    if not folder.exists():
        folder.mkdir()
        for seed in seeds:
            scan = image(seed, AFFINE, shape=(16, 18, 8), lesion=seed > 20)
            write_image(scan, folder / f"sub-{seed}_T1.nii.gz")


# What is left


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a folder by their names."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check_files(folder: Path) -> None:
    """Open every file that has its final name."""
    for path in folder.rglob("*"):
        if path.is_file() and not is_temporary(path):
            for ending, check in CHECKS.items():
                if path.name.endswith(ending):
                    check(path)


def is_temporary(path: Path) -> bool:
    is_partial = path.name.endswith(".tmp") or ".safetensors." in path.name or ".thread-" in path.name
    return is_partial or any(part.startswith(".model-") for part in path.parts)


def check_table(path: Path) -> None:
    text = path.read_text()
    assert text.endswith("\n")
    assert len({len(row) for row in csv.reader(text.splitlines())}) == 1


def check_page(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>")


def check_arrays(path: Path) -> None:
    with np.load(path) as arrays:
        assert all(arrays[name] is not None for name in arrays)


CHECKS: dict[str, Callable[[Path], object]] = {
    ".nii.gz": read_scan, ".safetensors": load_file, ".npz": check_arrays, ".csv": check_table, ".html": check_page,
    ".json": lambda path: json.loads(path.read_text()), "output.pkl": joblib.load,
}  # fmt: skip


# Kills


def in_child(work: Callable[[], None], seconds: float = math.inf) -> int:
    """Do work in a process of its own, which is killed once it has computed for so long; return its exit status."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            work()
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    ended = os.waitpid(child, 0 if seconds == math.inf else os.WNOHANG)
    while ended[0] == 0:
        times = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]
        if sum(map(int, times)) * TICK > seconds:
            os.kill(child, signal.SIGKILL)
        time.sleep(TICK)
        ended = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(ended[1])


def count_file_events(at: int = 0) -> list[int]:
    """Count what this process does with files; it is killed at event number ``at``, before that is done."""
    count = [0]

    def hook(event: str, arguments: tuple) -> None:
        if event.startswith(FILE_EVENTS):
            count[0] += 1
            if count[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return count


class Unbroken:
    """A run that nothing stops: what comes of it, its computing time, and how often it uses files."""

    def __init__(self, work: Fit | Score | Save, folder: Path) -> None:
        self.work, measured = work, folder.with_name(f"{folder.name}.measured")

        def count() -> None:
            events = count_file_events()
            work.run(folder)
            measured.write_text(str(events[0]))

        def time_it() -> None:
            started = time.process_time()
            work.run(folder)
            measured.write_text(str(time.process_time() - started))

        self._begin(folder)
        assert in_child(count) == 0
        self.n_events, self.result = int(measured.read_text()), work.result(folder)
        self._begin(folder)
        assert in_child(time_it) == 0
        self.seconds = float(measured.read_text())

    def _begin(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.work.prepare(folder)

    def kill(self, folder: Path, rng: np.random.Generator, event: int = 0) -> str:
        """Kill a run at a random moment, or at a file event; look at what it left, and repeat it; say when."""
        status = 0
        while status == 0:  # it may have been a little faster this time
            self._begin(folder)
            if event or rng.random() < 0.5:
                number = event or int(rng.integers(1, self.n_events + 1))
                moment = f"file event {number} of {self.n_events}"
                status = in_child(lambda at=number: (count_file_events(at), self.work.run(folder)))
            else:
                seconds = rng.uniform(0, self.seconds)
                moment = f"{seconds:.2f} of {self.seconds:.2f} s"
                status = in_child(lambda: self.work.run(folder), seconds)
        assert status == -signal.SIGKILL, f"status {status}"
        check_files(folder)
        self.work.check_rest(folder)
        assert in_child(lambda: self.work.run(folder)) == 0, "it does not resume"
        found = self.work.result(folder)
        assert set(found) == set(self.result), sorted(set(found) ^ set(self.result))
        assert found == self.result, [name for name in found if found[name] != self.result[name]]
        check_files(folder)
        return moment


def main(n_kills: int, seed: int) -> int:
    """Kill each kind of work ``n_kills`` times; print what came of it, and return how often it was wrong."""
    n_wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for work in [Fit(folder), Score(folder), Save(folder)]:
            name, rng = type(work).__name__.lower(), np.random.default_rng(seed)
            unbroken = Unbroken(work, folder / name)
            # A model is saved in so few steps that each is a moment of its own.
            events = [1 + k % unbroken.n_events if name == "save" else 0 for k in range(n_kills)]
            for number, event in enumerate(events):
                try:
                    outcome = "survived: " + unbroken.kill(folder / f"{name}-{number}", rng, event)
                except Exception as error:
                    outcome, n_wrong = f"WRONG: {type(error).__name__}: {error}", n_wrong + 1
                print(f"{name} {number + 1}: {outcome}", flush=True)
    print(f"{3 * n_kills - n_wrong} of {3 * n_kills} kills survived")
    return n_wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each kind of work")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    matplotlib.use("agg")
    warnings.simplefilter("ignore", SkmimoodWarning)
    sys.exit(main(chosen.kills, chosen.seed) > 0)
