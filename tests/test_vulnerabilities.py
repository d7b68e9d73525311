"""What no file and no name can make the program do: reach the network, unpack an archive, or run code."""

import ast
import subprocess
import sys
from pathlib import Path

import nibabel as nib
from toy_scans import RAS, head, write_healthy_scans

import skmimood
from skmimood.nifti import write_image

WITHOUT_SOCKETS = """
import socket

def refuse(*arguments, **options):
    raise AssertionError("a socket was opened")

socket.socket.__init__ = socket.getaddrinfo = socket.create_connection = refuse

from pathlib import Path
from skmimood.cli import main
from skmimood.jobs.fitting import FitJob, fit_model

parameters = {"tokenizer__channels": 8, "evidence__channels": 4, "inpainter__n_restorations": 1}
for step in ("tokenizer", "evidence", "detector", "inpainter"):
    parameters[f"{step}__training__max_iter"] = 1
fit_model(["scans"], Path("model"), FitJob(size=16, scan_fpr=0.5, parameters=parameters), print)
assert main(["info", "model"]) == 0
assert main(["score", "scans/sub-0_T1.nii.gz", "-m", "model", "-o", "out", "--viewer", "all", "--healed"]) == 0
assert main(["evaluate", "out", "masks"]) == 0
"""


def test_vulnerability_network_no_socket_is_opened_from_fit_to_report(tmp_path):
    for folder in ("scans", "masks"):
        (tmp_path / folder).mkdir()
    write_healthy_scans(tmp_path / "scans")
    write_image(nib.Nifti1Image(head()[1], RAS), tmp_path / "masks" / "sub-0_T1.nii.gz")
    subprocess.run([sys.executable, "-W", "ignore", "-c", WITHOUT_SOCKETS], cwd=tmp_path, check=True)
    assert {"report.html", "sub-0_T1.html", "sub-0_T1_healed.nii.gz"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def names_in_sources():
    """Return the modules that the package imports, and the names of what it calls."""
    trees = [
        ast.parse(path.read_text(encoding="utf-8")) for path in Path(skmimood.__file__).parent.rglob("*.py")
    ]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    modules = plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    return modules, called


def test_vulnerability_network_no_module_imports_what_opens_a_connection():
    modules, _ = names_in_sources()
    clients = {"socket", "ssl", "http", "urllib.request", "ftplib", "requests", "httpx", "aiohttp", "pooch"}
    assert not {name for name in modules if name in clients or name.startswith("http.")}


def test_vulnerability_path_traversal_no_archive_is_unpacked():
    modules, called = names_in_sources()
    assert "tarfile" not in modules
    assert not {
        name for name in called if name.rpartition(".")[2] in ("extract", "extractall", "unpack_archive")
    }


def test_vulnerability_pickle_no_module_unpickles_a_file_or_runs_text():
    _, called = names_in_sources()
    assert not called & {
        "pickle.load",
        "torch.load",
        "joblib.load",
        "cloudpickle.load",
        "eval",
        "exec",
        "np.loads",
    }
