"""``python -m benchmarks pareto``: its variants, its table, and what the report makes of it."""

import argparse
import copy

import pytest
import torch
from benchmark_toys import toy_set
from conftest import small_steps
from sklearn.pipeline import Pipeline

from benchmarks.commands import pareto
from benchmarks.protocol.methods import Method
from benchmarks.report import speed as speed_report
from benchmarks.timing import networks
from skmimood.baselines import AutoregressiveRestorer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def toys():
    """Return both families, fitted briefly on toy slices, and these."""
    slices = toy_set()
    mimood = networks.fit_briefly(Pipeline(small_steps()), slices.training().images)
    tokenizer = mimood["tokenizer"]
    network = {"depth": 1, "width": 16, "n_heads": 2, "random_state": 0}
    restorer = AutoregressiveRestorer(threshold=3.0, **network)
    networks.fit_briefly(restorer, tokenizer.transform(slices.training().images))
    autoregressive = Pipeline([("tokenizer", tokenizer), ("restorer", restorer)])
    return {"mimood": mimood, "ar": autoregressive}, slices


@pytest.fixture
def few_variants(monkeypatch):
    grids = {
        "mimood": [{"n_steps": [1, 2], "n_restorations": [2]}, {"n_steps": [1], "n_restorations": [1]}],
        "ar": [{"n_restorations": [1, 4]}],
    }  # fmt: skip
    monkeypatch.setattr(pareto, "GRIDS", grids)


def test_variants_hold_the_default_once_and_both_precisions(toys, few_variants):
    listed = list(pareto.variants("mimood", toys[0]["mimood"]))
    assert [name for name, _, _ in listed] == [
        "n_restorations 2, n_steps 1", "n_restorations 2, n_steps 2", "n_restorations 1, n_steps 1", "float32",
        "bfloat16", "plain reading",
    ]  # fmt: skip
    assert [is_default for _, _, is_default in listed] == [False, True, False, False, False, False]


def test_accuracy_and_time_of_both_families_are_rows_of_one_table(toys, few_variants):
    pipelines, slices = toys
    rows = pareto.measure(copy.deepcopy(pipelines), slices, CPU, repeats=1)
    assert {row["variant"] for row in rows if row["split"] == "test"} == {"float32", "bfloat16"}
    assert {row["precision"] for row in rows if row["variant"] in pareto.PRECISIONS} == {
        "float32",
        "bfloat16",
    }
    uncached = [row for row in rows if row["variant"] == "uncached"]
    assert [(row["method"], row["key_value_cache"]) for row in uncached] == [("ar", False)]
    cached = next(row for row in rows if row["method"] == "ar" and row["is_default"])
    assert uncached[0]["ap"] == cached["ap"]
    assert all(0 <= row["ap"] <= 1 and row["seconds_per_32"] > 0 for row in rows)


def test_the_command_writes_a_table_that_the_report_reads(toys, monkeypatch, tmp_path):
    pipelines, slices = toys
    methods = {name: Method(name, lambda _, name=name: pipelines[name], {}) for name in pipelines}
    monkeypatch.setattr(pareto, "METHODS", methods)
    monkeypatch.setattr(pareto, "slices_of_command", lambda _: slices)
    monkeypatch.setattr(pareto.stages, "learn", lambda *_: (0.0, {}))
    monkeypatch.setattr(pareto, "GRIDS", {"mimood": [{"n_steps": [2]}], "ar": [{"n_restorations": [4]}]})
    parser = argparse.ArgumentParser()
    pareto.add_arguments(parser)
    options = ["--results", str(tmp_path), "--cache", str(tmp_path), "--device", "cpu", "--repeats", "1"]
    pareto.run(parser.parse_args(options))
    text = speed_report.render(tmp_path, tmp_path)
    assert "bfloat16 against float32" in text
    assert "n_steps 2, as it comes" in text
