"""Threads of torch where a process is forked, and beside other work on the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux forks, and only there is GNU's OpenMP"
)

TESTS = Path(__file__).parent


def output_of(*command, **environment):
    """Return the lines that a Python process with two threads of torch prints."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=inherited | {"PYTHONPATH": paths} | environment,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_process_forked_after_a_prediction_answers_and_is_refused_threads_that_it_lost():
    *answered, refusal = output_of(TESTS / "forked.py")
    assert answered == ["fork", "multiprocessing", "joblib", "fit", "templates"]
    assert "forked from one that had used them" in refusal
    assert "torch.set_num_threads(1)" in refusal


PATIENCE = """
import threading, torch
torch.set_num_threads({n_threads})
from skmimood.runtime.device import resolve_device
resolve_device("cpu")
resolve_device("cpu")
counts = [torch.get_num_threads()]
thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
thread.start()
thread.join()
print([one.name for one in threading.enumerate()].count("skmimood-patience"), *counts)
"""


@pytest.mark.parametrize(
    ("n_threads", "environment", "n_teams"),
    [(2, {}, 1), (1, {}, 0), (2, {"OMP_WAIT_POLICY": "ACTIVE"}, 0), (2, {"GOMP_SPINCOUNT": "7"}, 0)],
)
def test_threads_wait_asleep_unless_there_is_one_or_the_user_has_said_how(n_threads, environment, n_teams):
    [line] = output_of("-c", PATIENCE.format(n_threads=n_threads), **environment)
    assert line == f"{n_teams} {n_threads} {n_threads}"
