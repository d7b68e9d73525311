"""Some of what ``make fuzz`` and ``make kills`` do, in processes of their own: these limit their memory and fork."""

import os
import subprocess
import sys
from pathlib import Path


def last_line_of(program, *options):
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name(program), *options],
        capture_output=True, text=True, timeout=1800, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_damaged_scans_and_models_give_a_result_or_an_error_of_our_own():
    assert last_line_of("fuzzing.py", "--mutations", "500") == "500 of 500 mutations survived"


def test_what_is_killed_leaves_whole_files_and_resumes_to_the_same_bytes():
    assert last_line_of("kills.py", "--kills", "2") == "6 of 6 kills survived"
