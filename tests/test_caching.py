import time

import numpy as np
import pytest
from joblib import Memory

from skmimood.exceptions import SkmimoodWarning
from skmimood.runtime import cache
from skmimood.runtime.cache import run_cached, session_directory

CALLS = []


class SlowNumber(int):
    def __repr__(self):
        time.sleep(0.6)
        return "slow"


def double(*, numbers, runtime):
    CALLS.append(runtime)
    return 2 * numbers


@pytest.fixture(autouse=True)
def _forget_calls():
    CALLS.clear()


@pytest.mark.parametrize("as_memory", [str, lambda path: Memory(path, verbose=0)])
def test_an_equal_call_is_read_from_the_cache_whatever_its_runtime(tmp_path, as_memory):
    memory = as_memory(str(tmp_path))
    first, second = (
        run_cached(double, memory, runtime=device, numbers=np.arange(3)) for device in ("cpu", "cuda")
    )
    np.testing.assert_array_equal(first, second)
    assert CALLS == ["cpu"]


def test_a_cache_in_the_home_folder_is_found_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        run_cached(double, "~/cache", runtime=None, numbers=1)
    assert CALLS == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_other_arguments_are_computed(tmp_path):
    for number in (1, 2):
        assert run_cached(double, str(tmp_path), numbers=number) == 2 * number
    assert len(CALLS) == 2


def test_what_other_code_has_computed_is_computed_again(tmp_path, monkeypatch):
    for digest in ("before", "after", "before"):
        monkeypatch.setattr(cache, "code_digest", lambda module, digest=digest: f"{module}-{digest}")
        assert run_cached(double, str(tmp_path), numbers=1) == 2
    assert len(CALLS) == 2
    assert len(list(tmp_path.glob(f"*{__name__}-before*"))) == 1


@pytest.mark.parametrize("memory", [None, Memory(None, verbose=0)])
def test_without_a_place_nothing_is_cached(memory):
    for _ in range(2):
        run_cached(double, memory, numbers=1)
    assert len(CALLS) == 2


def test_slow_arguments_are_not_warned_about(tmp_path):
    # Warnings are errors here, and joblib warns of arguments that take half a second to write down.
    assert run_cached(double, str(tmp_path), numbers=SlowNumber(4)) == 8


def test_a_cache_that_cannot_be_written_costs_a_warning_and_not_the_result(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.warns(
        SkmimoodWarning, match=r"'cache' cannot be written \(Not a directory\).*another memory"
    ):
        assert run_cached(double, str(tmp_path / "taken" / "cache"), numbers=4) == 8
    assert (tmp_path / "taken").read_text() == "mine"


def test_the_session_has_one_private_directory():
    import os
    import stat

    directory = session_directory()
    assert directory == session_directory()
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
