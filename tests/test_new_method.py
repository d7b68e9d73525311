"""The example of docs/architecture.md is a whole method: one file and one line, and everything else takes it in."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

USE = """
import numpy as np
from skmimood import load_model, save_model
from skmimood.baselines import MirrorDifference
from skmimood.datasets import make_brain_phantom

healthy, _ = make_brain_phantom(12, size=32, random_state=0)
scans, masks = make_brain_phantom(6, size=32, lesions=True, random_state=1)
detector = MirrorDifference(erosion=1).fit(healthy)
save_model(detector, "model")
loaded = load_model("model")
maps = loaded.decision_function(scans)
np.testing.assert_array_equal(maps, detector.decision_function(scans))
assert loaded.get_params() == {"erosion": 1, "fpr": 0.01} and loaded.threshold_ == detector.threshold_
assert maps[masks].mean() > 2 * maps[~masks].mean()  # it finds lesions, which lie on one side
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project with the example's file and line added, as its reader would add them."""
    folder = tmp_path_factory.mktemp("project")
    for part in ("skmimood", "benchmarks", "tests"):
        shutil.copytree(
            ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "results", "golden")
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    file, line = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL
    )
    (folder / "skmimood" / "detectors" / "mirror.py").write_text(file)
    registry = folder / "skmimood" / "estimators.py"
    registry.write_text(registry.read_text().replace("ESTIMATORS = {\n", "ESTIMATORS = {\n" + line, 1))
    return folder


def run(project, *command):
    environment = os.environ | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_imported_fitted_saved_and_loaded(project):
    run(project, "-c", USE)


def test_the_common_tests_take_it_in_and_pass(project):
    files = ["tests/test_estimator_contract.py", "tests/test_refit_parameters.py"]
    said = run(project, "-m", "pytest", "-p", "no:cacheprovider", *files, "-k", "Mirror or every_estimator")
    assert int(re.search(r"(\d+) passed", said)[1]) >= 5


def test_the_benchmarks_take_it_in(project):
    options = ["--data", "phantom", "--methods", "MirrorDifference", "--seeds", "0", "--device", "cpu"]
    run(project, "-m", "benchmarks", "accuracy", *options, "--cache", "cache", "--results", "results")
    rows = (project / "results" / "phantom.csv").read_text().splitlines()
    assert len(rows) > 5
    assert all("MirrorDifference" in row for row in rows[1:])
