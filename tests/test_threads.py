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
import os, threading, torch
torch.set_num_threads({n_threads})
from skmimood.runtime.device import resolve_device
os.sched_getaffinity = lambda process: range({n_cpus})
before = len(os.listdir("/proc/self/task"))
resolve_device("cpu")
started = len(os.listdir("/proc/self/task")) - before
resolve_device("cpu")
counts = [torch.get_num_threads()]
thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
thread.start()
thread.join()
print([one.name for one in threading.enumerate()].count("skmimood-patience"), started, *counts)
"""


@pytest.mark.parametrize(
    ("n_cpus", "n_threads", "environment", "n_started"),
    [
        (2, 2, {}, 2), (8, 2, {}, 8), (8, 8, {}, 2), (128, 100, {}, 30),
        (2, 1, {}, 0), (2, 4, {}, 0), (128, 2, {}, 0),
        (2, 2, {"OMP_WAIT_POLICY": "ACTIVE"}, 0), (2, 2, {"GOMP_SPINCOUNT": "7"}, 0),
    ],
)  # fmt: skip
def test_threads_sleep_while_they_wait_where_few_more_make_them_and_the_user_has_not_said_how(
    n_cpus, n_threads, environment, n_started
):
    [line] = output_of("-c", PATIENCE.format(n_cpus=n_cpus, n_threads=n_threads), **environment)
    assert line == f"{min(n_started, 1)} {n_started} {n_threads} {n_threads}"
