"""``python -m benchmarks accuracy``: what it writes, that it resumes, and its errors; and that methods are built."""

import sys

import numpy as np
import pytest
import torch
from benchmark_toys import TOY, Brightness, toy_set
from sklearn.base import BaseEstimator
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline

from benchmarks import records
from benchmarks.__main__ import main
from benchmarks.commands import accuracy
from benchmarks.commands.options import listed
from benchmarks.data import sources
from benchmarks.protocol import ledger, outcomes, stages, summary
from benchmarks.protocol.methods import METHODS, Settings, n_candidates
from skmimood.exceptions import InputError


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the command on a toy set and returns the rows of a result table."""
    monkeypatch.setattr(sources, "phantom_slices", toy_set)
    monkeypatch.setattr(accuracy, "METHODS", {"toy": TOY, "other": TOY})
    monkeypatch.setattr(records, "commit", lambda: "abc1234")
    monkeypatch.setattr(summary, "OURS", ("other",))
    monkeypatch.setattr(accuracy, "save_cases", lambda *_: None)

    def command(*arguments, table=""):
        defaults = [
            "--data",
            "phantom",
            "--cache",
            str(tmp_path / "cache"),
            "--results",
            str(tmp_path / "results"),
        ]
        options = ["benchmarks", "accuracy", *defaults, "--device", "cpu", *arguments]
        monkeypatch.setattr(sys, "argv", options)
        main()
        return records.read_table(tmp_path / "results" / f"phantom{table}.csv")

    return command


def test_a_run_writes_the_agreed_columns_for_every_seed(run):
    rows = run("--methods", "toy", "--seeds", "0", "1")
    assert ",".join(sorted(rows[0])) == (
        "ap,auroc,best_dice,commit,dataset,device,dice_at_val_threshold,false_alarm_rate,level,"
        "method,preset,region,seconds_per_32,seed,slices,split"
    )
    assert {row["seed"] for row in rows} == {"0", "1"}
    assert {(row["dataset"], row["method"], row["preset"], row["commit"]) for row in rows} == {
        ("phantom", "toy", "tiny", "abc1234")
    }
    assert {row["split"] for row in rows} == {"val", "test"}


def test_a_second_run_computes_nothing_and_a_forced_one_everything(run):
    first = run("--methods", "toy", "--seeds", "0")
    before = dict(Brightness.calls)
    assert run("--methods", "toy", "--seeds", "0") == first
    assert Brightness.calls == before
    assert len(run("--methods", "toy", "--seeds", "0", "--again")) == len(first)
    assert Brightness.calls["fit"] == before["fit"] + 1


def test_a_killed_run_goes_on_where_it_stopped(run, monkeypatch):
    evaluate = accuracy.stages.evaluate

    def killed(estimator, slices):
        if estimator.random_state == 1:
            raise KeyboardInterrupt
        return evaluate(estimator, slices)

    with monkeypatch.context() as patch:
        patch.setattr(accuracy.stages, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            run("--methods", "toy", "--seeds", "0", "1")
    before = Brightness.calls["fit"]
    assert {row["seed"] for row in run("--methods", "toy", "--seeds", "0", "1")} == {"0", "1"}
    assert Brightness.calls["fit"] == before + 1


def test_other_slices_or_another_grid_are_run_again(run, monkeypatch, tmp_path):
    run("--methods", "toy", "--seeds", "0")
    before = Brightness.calls["fit"]
    monkeypatch.setattr(accuracy, "METHODS", {"toy": type(TOY)(TOY.title, TOY.build, {"power": [1.0]})})
    run("--methods", "toy", "--seeds", "0")
    toy_set(n_train=4).save(tmp_path / "other.npz")
    run("--methods", "toy", "--seeds", "0", "--slices", str(tmp_path / "other.npz"))
    assert Brightness.calls["fit"] == before + 2


def test_what_other_code_has_finished_is_run_again(run, monkeypatch):
    first = run("--methods", "toy", "--seeds", "0", table="_runs")
    before = Brightness.calls["fit"]
    for part in (outcomes, ledger):  # code of the protocol, then of a method
        with monkeypatch.context() as patch:
            patch.setattr(part, "code_digest", lambda *modules: "changed")
            patch.setattr(records, "commit", lambda: "abc1234-dirty")
            (row,) = run("--methods", "toy", "--seeds", "0", table="_runs")
        assert row["trained"] == row["commit"] == "abc1234-dirty"
    assert Brightness.calls["fit"] == before + 2
    assert run("--methods", "toy", "--seeds", "0", table="_runs") == first
    assert first[0]["trained"] == first[0]["commit"] == "abc1234"
    assert Brightness.calls["fit"] == before + 2


def test_a_network_keeps_the_commit_that_trained_it(tmp_path, monkeypatch):
    class Network(BaseEstimator):
        def fit(self, X):
            self.state_ = {"weights": np.ones(3)}
            return self

    def fitted_at(commit, code):
        monkeypatch.setattr(records, "commit", lambda: commit)
        monkeypatch.setattr(ledger, "code_digest", lambda *modules: code)
        pipeline = Pipeline([("network", Network()), ("toy", Brightness())])
        pipeline["network"].transform = lambda X: X
        stages.fit(pipeline, np.zeros((2, 8, 8)), tmp_path / ledger.NAME)
        return ledger.trained(tmp_path / ledger.NAME, pipeline)

    assert fitted_at("first", "code") == {"trained": "first", "trained_code": "code"}
    assert fitted_at("second", "code") == {"trained": "first", "trained_code": "code"}
    assert fitted_at("third", "changed") == {"trained": "third", "trained_code": "changed"}


def test_the_report_tells_which_networks_have_no_record():
    toy, old = {"method": "dae", "trained": "a b"}, {"method": "mae", "trained": ""}
    assert ledger.sentence([toy]) == "networks trained at commit a, b"
    assert ledger.sentence([old]).startswith("no record tells which code trained the networks")
    assert "trained at commit a, b; no record tells which code trained those of Masked autoenc" in (
        ledger.sentence([toy, old])
    )


def test_rows_are_replaced_and_those_of_other_runs_kept(run):
    both = run("--methods", "toy,other", "--seeds", "0")
    assert run("--methods", "other", "--seeds", "0") == both
    more = run("--methods", "toy", "--seeds", "1")
    assert len(more) == len(both) + len(both) // 2
    assert len(run("--methods", "toy", "--seeds", "0", table="_runs")) == 3


def test_intervals_curves_and_differences_are_written(run):
    intervals = run("--methods", "toy,other", "--seeds", "0", "1", table="_intervals")
    assert {row["metric"] for row in intervals} == {*records.METRICS}
    assert all(float(row["low"]) <= float(row["high"]) for row in intervals)
    assert {row["seeds"] for row in intervals} == {"0 1"}
    differences = run("--methods", "toy,other", "--seeds", "0", "1", table="_differences")
    assert {(row["method"], row["minus"], float(row["mean"])) for row in differences} == {
        ("other", "toy", 0.0)
    }
    curves = run("--methods", "toy,other", "--seeds", "0", "1", table="_curves")
    assert {row["seed"] for row in curves} == {"0"}


def test_what_cannot_be_run_ends_in_one_sentence_before_any_training(run, tmp_path):
    before = Brightness.calls["fit"]
    with pytest.raises(SystemExit, match=r"^error: .*no folder.*Expected are files such as"):
        run("--data", "lgg", "--root", str(tmp_path / "nowhere"))
    assert Brightness.calls["fit"] == before


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="no method 'mimod'; there are intensity"):
        listed("intensity,mimod", METHODS, "method")
    assert listed("mimood,intensity", METHODS, "method") == ["intensity", "mimood"]
    assert listed("all", METHODS, "method") == list(METHODS)


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_built_with_parameters_that_it_has(name, preset, tmp_path):
    settings = Settings(preset, seed=3, device="cpu", cache=tmp_path)
    estimator = METHODS[name].build(settings)
    for candidate in ParameterGrid(METHODS[name].grid):
        estimator.set_params(**candidate)
    if isinstance(estimator, Pipeline):
        ours = METHODS["mimood"].build(settings).named_steps["tokenizer"]
        theirs = estimator.named_steps.get("tokenizer", ours)
        assert theirs.get_params() == ours.get_params()  # one for all, trained once
        trained = [step for _, step in estimator.steps if hasattr(step, "memory")]
        assert all(step.random_state == 3 and step.memory == str(tmp_path / "networks") for step in trained)


# A factor or a distance has no sign.
UNSIGNED = {"foreign-patch", "reverse-distillation", "student-teacher"}


def test_no_rival_has_fewer_candidates_on_val_or_fewer_axes_than_ours():
    ours = n_candidates(METHODS["mimood"].grid)
    chosen = {name: method.grid for name, method in METHODS.items() if method.grid}
    assert {name for name, grid in chosen.items() if n_candidates(grid) < ours} == set()
    for name, grid in chosen.items():
        axes = {
            axis.rpartition("__")[2]
            for stage in ([grid] if isinstance(grid, dict) else grid)
            for axis in stage
        }
        assert axes & {"residual", "bright"} or name in UNSIGNED, name
        assert "erosion" in axes, name
        assert axes & {"smoothing", "median_filter", "mean_filter"}, name


def test_every_rival_with_a_network_has_a_row_without_a_choice(tmp_path):
    settings = Settings("tiny", seed=0, device="cpu", cache=tmp_path)
    trained = {
        name
        for name, method in METHODS.items()
        if any(key.endswith("training") for key in method.build(settings).get_params())
    }
    chosen = {name for name in trained if METHODS[name].grid}
    assert "mae" in chosen
    for name in chosen:
        default = METHODS[f"{name}-default"]
        assert not default.grid
        assert default.title.endswith("as it comes")


def test_rivals_share_the_in_painter_of_the_published_method(tmp_path):
    settings = Settings("tiny", seed=0, cache=tmp_path)
    ours, likelihood, critic = (
        METHODS[name].build(settings) for name in ("mimood-paper", "mvtm-likelihood", "token-critic")
    )
    assert ours[-1].get_params() == likelihood[-1].get_params() == critic[-1].get_params()
    inpainter = ours[-1].get_params()
    shared = {name for name in likelihood[1].get_params() if name in inpainter and name != "threshold"}
    assert {name: inpainter[name] for name in shared} == {
        name: likelihood[1].get_params()[name] for name in shared
    }


def test_the_number_of_threads_is_set_and_noted(run):
    before = torch.get_num_threads()
    try:
        rows = run("--methods", "toy", "--seeds", "0", "--threads", "2", table="_runs")
        assert {row["threads"] for row in rows} == {"2"}
    finally:
        torch.set_num_threads(before)
