import io
import sys

import numpy as np
import pytest
from conftest import make_slices, small_steps
from sklearn.pipeline import Pipeline
from toy_scans import image, make

from skmimood.runtime import progress
from skmimood.runtime.progress import each, job, stage
from skmimood.scans.fitting import expected_seconds


@pytest.fixture
def clock(monkeypatch):
    """Return a list of which the one entry is what the clock says."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.tqdm, "__init__", _with_clock(progress.tqdm.__init__, now))
    return now


def _with_clock(init, now):
    def start(self, *arguments, **options):
        init(self, *arguments, **options)
        self._time = lambda: now[0]
        self.start_t = self.last_print_t = now[0]

    return start


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_in_a_log_file_there_is_a_line_a_stage_and_one_every_ten_seconds(clock, capsys):
    with job("fit", {"reading": 10.0, "VQTokenizer": 75.0}, shown=True):
        for _ in each(range(10), "reading", "scans", shown=False):
            clock[0] += 1
        with stage("VQTokenizer", 300, "steps", shown=False) as steps:
            for step in range(1, 301):
                clock[0] += 0.25
                steps.move_to(step, "loss 0.1")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "fit: 0 %, reading 0/10 scans"
    assert lines[2] == "fit: 12 %, VQTokenizer 0/300 steps; 00:10 gone, about 01:15 left"
    assert lines[-1] == "fit: 100 %, VQTokenizer 300/300 steps, loss 0.1; 01:25 gone, about 00:00 left"
    assert len(lines) <= 2 * 2 + 85 / 10


def test_on_a_terminal_there_is_one_bar_over_all_stages(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with job("fit", {"reading": 10.0, "VQTokenizer": 90.0}, shown=True):
        for name in ("reading", "VQTokenizer"):
            list(each(range(10), name, "scans", shown=True))
    written = sys.stderr.getvalue()
    assert written.count("\n") == 1
    assert "fit 100%" in written


def test_what_comes_from_a_cache_or_ends_early_is_not_taken_for_quick_work(clock, capsys):
    with job(
        "fit", {"reading": 10.0, "VQTokenizer": 500.0, "detector": 20.0, "calibrating": 10.0}, shown=True
    ):
        for _ in each(range(10), "reading", "scans", shown=False):
            clock[0] += 1
        with stage("detector", 20, "steps", shown=False, done=5) as steps:  # 5 of them before an interruption
            for step in range(6, 16):
                clock[0] += 1
                steps.move_to(step)
        for _ in each(range(10), "calibrating", "scans", shown=False):
            clock[0] += 1
    lines = capsys.readouterr().err.splitlines()
    (detector,) = (line for line in lines if "detector 5/20" in line)
    (calibrating,) = (line for line in lines if "calibrating 0/10" in line)
    assert detector.endswith("about 00:25 left")
    assert calibrating.startswith("fit: 67 %")
    assert calibrating.endswith("about 00:10 left")


def test_stages_that_nobody_expected_are_named_all_the_same(capsys):
    with job("fit", {"reading": 1.0}, shown=True):
        list(each(range(3), "painted copies", "batches", shown=False))
        list(each(range(3), "reading", "scans", shown=False))
    printed = capsys.readouterr().err
    assert "painted copies 0/3 batches" in printed
    assert printed.splitlines()[-1].startswith("fit: 100 %")


def test_nothing_is_shown_unless_asked_for(capsys):
    with job("fit", {"reading": 1.0}, shown=False):
        assert list(each(range(3), "reading", "scans", shown=False)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_fault_ends_what_is_shown(capsys):
    with pytest.raises(ZeroDivisionError), job("fit", {"reading": 1.0}, shown=True):
        list(each([1, 2, 3], "reading", "scans", shown=False)).index(1 / 0)
    list(each(range(3), "alone", "scans", shown=True))
    assert "alone: 100 %" in capsys.readouterr().err


def test_a_verbose_pipeline_is_never_silent(capsys):
    steps = small_steps(max_iter=3, verbose=True)
    steps[1][1].set_params(corruption="painted", n_painted=2)
    Pipeline(steps).fit(make_slices(12))
    printed = capsys.readouterr().err
    assert "\r" not in printed
    names = [line.partition(":")[0] for line in printed.splitlines()]
    expected = ["VQTokenizer", "moved copies", "painted copies", "AnomalousTokenDetector"]
    assert list(dict.fromkeys(names)) == [*expected, "MaskedTokenInpainter"]
    assert np.all([names.count(name) >= 2 for name in expected])


def test_a_verbose_detector_shows_one_progress_over_all_that_fit_does(capsys):
    steps = small_steps(max_iter=3)
    steps[1][1].set_params(corruption="painted", n_painted=2)
    pipeline = Pipeline(steps)
    detector = make(pipeline=pipeline, size=32, verbose=True).fit([image(seed) for seed in range(4)])
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("fit: ") for line in lines)
    expected = list(expected_seconds(pipeline, 4))
    shown = [next(name for name in expected if f"%, {name} " in line) for line in lines]
    assert list(dict.fromkeys(shown)) == expected
    assert lines[-1].startswith("fit: 100 %, calibrating")
    detector.decision_function(image(7))
    assert "scoring: 100 %, 1/1 scans" in capsys.readouterr().err


class Closed(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [None, Closed()])
def test_a_job_outlives_those_who_read_its_progress(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    with job("fit", {"reading": 1.0}, shown=True):
        assert list(each(range(3), "reading", "scans", shown=False)) == [0, 1, 2]
