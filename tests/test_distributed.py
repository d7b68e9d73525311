"""Two processes that train together on the CPU, as torchrun starts them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from distributed_fit import cosine_tokenizer, learnt, pipeline, small_heads

PROGRAM = Path(__file__).with_name("distributed_fit.py")


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Return what the first and the second process have learnt and seen."""
    folder = tmp_path_factory.mktemp("distributed")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(PROGRAM), str(folder)], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(2)]


def test_two_processes_learn_what_one_learns(processes):
    alone = learnt(pipeline().fit(small_heads()))
    for name, array in alone.items():
        # AdamW makes of a rounding error in a vanishing gradient a share of a step of 0.002.
        np.testing.assert_allclose(processes[0][name], array, rtol=1e-3, atol=1e-3, err_msg=name)
        if name.startswith("history_"):
            np.testing.assert_allclose(processes[0][name], array, rtol=1e-4, err_msg=name)


def test_all_processes_have_the_same_weights_to_the_bit(processes):
    names = [name for name in processes[0] if name.startswith(("state_", "history_"))]
    assert names
    for name in names:
        np.testing.assert_array_equal(*(process[name] for process in processes), err_msg=name)


def test_codes_of_unit_norm_are_those_that_one_process_learns(processes):
    np.testing.assert_array_equal(processes[0]["cosine_codes"], processes[1]["cosine_codes"])
    alone = cosine_tokenizer().fit(small_heads()).codes
    np.testing.assert_allclose(processes[0]["cosine_codes"], alone, atol=1e-3)


def test_only_the_first_writes_cache_checkpoints_and_models(processes):
    first, second = processes
    assert {".pkl", ".safetensors"} <= set(first["written_when_interrupted"])
    assert len(second["written_when_interrupted"]) == 0
    assert (first["is_saved"], second["is_saved"]) == (True, False)


def test_a_seed_left_to_chance_is_the_same_in_all(processes):
    assert processes[0]["seed"] == processes[1]["seed"]


@pytest.mark.parametrize(
    ("refused", "says"), [("other_data", "got different data"), ("small_batch", "cannot be divided among 2")]
)
def test_what_cannot_be_shared_is_refused_by_all(processes, refused, says):
    assert all(says in str(process[refused]) for process in processes)
