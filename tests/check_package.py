"""What ``make package`` has just built: what sdist and wheel hold, and that the wheel works once installed."""

import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from skmimood import __version__

ROOT = Path(__file__).parents[1]
NAME = f"skmimood-{__version__}"
WHEEL = ROOT / "dist" / f"{NAME}-py3-none-any.whl"
SDIST = ROOT / "dist" / f"{NAME}.tar.gz"
SCORE = """
import sys
from pathlib import Path

import skmimood
from skmimood import ScanDetector
from skmimood.datasets import make_brain_phantom

assert Path(skmimood.__file__).is_relative_to(sys.prefix), skmimood.__file__
slices, _ = make_brain_phantom(1, size=32, random_state=0)
maps = ScanDetector.load(sys.argv[1]).pipeline_.decision_function(slices)
assert maps.shape == slices.shape and maps.max() > 0
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the programs of a new environment that has the wheel, and what it depends on from this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", python]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", WHEEL], check=True)
    site = sysconfig.get_path("purelib", vars={"base": folder, "platbase": folder})
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


def test_the_wheel_holds_the_package_and_its_data_and_nothing_else():
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "skmimood").rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    with ZipFile(WHEEL) as wheel:
        held = set(wheel.namelist())
    about = {name for name in held if name.startswith(f"{NAME}.dist-info/")}
    assert held - about == package
    assert {Path(name).suffix for name in package} == {".py", ".typed", ".html", ".css", ".js", ".txt"}
    assert {name.partition("/")[2] for name in about} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt",
        "licenses/LICENSE", "licenses/skmimood/jobs/templates/niivue/LICENSE.txt",
    }  # fmt: skip


def test_the_sdist_holds_what_a_developer_needs_and_nothing_else():
    with tarfile.open(SDIST) as sdist:
        top = {name.split("/")[1] for name in sdist.getnames()}
    assert top == {
        "skmimood", "tests", "examples", "benchmarks", "docs", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE",
        "Makefile", "constraints.txt", "pyproject.toml", "PKG-INFO", ".gitignore",
    }  # fmt: skip


def test_the_sdist_builds_the_wheel_that_the_checkout_builds():
    assert WHEEL.read_bytes() == (ROOT / "build" / "wheel" / WHEEL.name).read_bytes()


def test_files_of_a_release_name_its_version():
    assert (ROOT / "CHANGELOG.md").read_text().count(f"\n## {__version__}") == 1
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert (ROOT / "tests" / "golden" / __version__ / "model").is_dir()


def test_the_command_runs_from_the_wheel(installed, tmp_path):
    done = subprocess.run(
        [installed / "skmimood", "--version"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout == f"skmimood {__version__}\n"


def test_a_saved_model_maps_a_slice_from_the_wheel(installed, tmp_path):
    model = ROOT / "tests" / "golden" / __version__ / "model"
    subprocess.run([installed / "python", "-I", "-c", SCORE, model], cwd=tmp_path, check=True)
