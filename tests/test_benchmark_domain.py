import numpy as np
import pytest

from benchmarks.commands import domain
from benchmarks.records import replace_rows
from skmimood.datasets import write_phantom_dataset


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(domain, "_SIZES", (5,))
    patch.setattr(domain, "N_DRAWS", 2)
    small = {"n_healthy": 8, "size": 32, "n_slices": 12}
    patch.setattr(
        domain,
        "write_phantom_dataset",
        lambda folder, **options: write_phantom_dataset(folder, **{**options, **small}),
    )
    features = {name: list(domain._features_of_phantoms(name)) for name in ("t1", "t2")}
    others = [("phantom T2", one) for kind, one in features["t2"] if not kind]
    found = list(domain._rows("phantom T1", features["t1"], others))
    patch.undo()
    return found


def test_false_alarms_are_few_and_scans_of_other_kinds_are_flagged(rows):
    flagged = {row["kind"]: row["flagged"] for row in rows}
    assert flagged["healthy, unseen"] <= 0.5
    assert flagged["inverted"] == flagged["phantom T2"] == flagged["a quarter of the head"] == 1
    assert {row["n_scans"] for row in rows if row["kind"] == "healthy, unseen"} == {3}


def test_the_table_has_a_line_for_each_kind_and_a_column_for_each_model(rows, tmp_path):
    replace_rows(tmp_path / "domain.csv", rows, key=("cohort", "n_fit", "kind"))
    text = domain.render(tmp_path)
    assert "| share flagged | phantom T1, 5 scans |" in text
    assert "| inverted | 100.0% |" in text
    assert np.sum([line.startswith("| ") for line in text.splitlines()]) == 2 + len(rows)
