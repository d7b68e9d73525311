"""``python -m benchmarks ct``: slices of CT with their kinds, figures of slices and patients, tables, and resuming."""

import sys

import nibabel as nib
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from toy_ct import SPACING, head_ct, windowed

from benchmarks import records
from benchmarks.__main__ import main
from benchmarks.commands import ct
from benchmarks.data.sources import open_slices
from benchmarks.protocol import diagnosis
from benchmarks.protocol.methods import Method
from benchmarks.report import ct as report
from skmimood.baselines import IntensityThreshold
from skmimood.exceptions import InputError
from skmimood.nifti import write_image


class Counted(IntensityThreshold):
    fits = 0

    def _fit(self, healthy, held_out):
        type(self).fits += 1
        super()._fit(healthy, held_out)

    def score_samples(self, X):
        return -X.max((1, 2))  # as wrong as can be


TOYS = {
    "mimood-default": Method("ours, as it comes", lambda _: Counted(equalize="none", smoothing=1.0), {}),
    "bright": Method(
        "brightness", lambda _: Counted(equalize="none", smoothing=1.0), {"bright": [False, True]}
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Write 3 patients to learn from, and 2 with and 1 without a bleeding for val and test, as bytes in a window."""
    folder = tmp_path_factory.mktemp("ct")
    splits, slices = ["subject,split"], ["subject,slice,haemorrhage,kinds"]
    for number in range(9):
        subject, split = f"CT{number:03d}", ("train", "val", "test")[number // 3]
        is_healthy = split == "train" or number % 3 == 0
        values, _, at_skull, inside = head_ct(blood=35.0 if is_healthy else 65.0, seed=number)
        downwards = number % 2 == 1  # half of the files store the highest slice first
        order = slice(None, None, -1 if downwards else 1)
        affine = np.diag([*SPACING[:2], -SPACING[2] if downwards else SPACING[2], 1.0])
        (folder / subject).mkdir()
        write_image(
            nib.Nifti1Image(windowed(values[..., order]), affine), folder / subject / f"{subject}_ct.nii.gz"
        )
        splits.append(f"{subject},{split}")
        for place, (of_skull, of_inside) in enumerate(
            zip(at_skull.any((0, 1))[order], inside.any((0, 1))[order], strict=True)
        ):
            kinds = [] if is_healthy else ["epidural"] * int(of_skull) + ["intraparenchymal"] * int(of_inside)
            slices.append(f"{subject},{place},{int(bool(kinds))},{'+'.join(kinds)}")
    (folder / "splits.csv").write_text("\n".join(splits))
    (folder / "slices.csv").write_text("\n".join(slices))
    return folder


@pytest.fixture(scope="module")
def slices(root, tmp_path_factory):
    return open_slices("ct", 32, root=str(root), cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def run(root, tmp_path, monkeypatch):
    monkeypatch.setattr(ct, "METHODS", TOYS)
    monkeypatch.setattr(records, "commit", lambda: "abc1234")
    monkeypatch.setattr(
        ct, "slices_of_command", lambda arguments: open_slices("ct", 32, root=str(root), cache=tmp_path)
    )

    def command(*arguments):
        options = ["--cache", str(tmp_path), "--results", str(tmp_path / "results"), "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["benchmarks", "ct", *options, *arguments])
        main()
        return records.read_table(tmp_path / "results" / "ct.csv")

    return command


def test_slices_have_their_own_kinds_however_the_file_stores_them(slices):
    assert set(slices.kinds[slices.splits == "train"]) == {""}
    for patient in ("CT004", "CT005", "CT007"):
        chosen = slices.patients == patient
        brightest = np.array(
            [one[head].max() for one, head in zip(slices.images[chosen], slices.head[chosen], strict=True)]
        )
        has = slices.kinds[chosen] != ""
        assert brightest[has].max() > 0.7
        assert np.flatnonzero(has).mean() == pytest.approx(brightest.argmax(), abs=2)


def test_only_the_brain_is_left_on_the_slices(slices):
    assert slices.images[slices.splits == "train"].max() < 0.7  # bone and head-rest are 1
    assert slices.head.mean((1, 2)).min() > 0.05
    assert np.median(slices.images[slices.head]) == pytest.approx(35 / 80, abs=0.02)


def test_a_table_of_another_number_of_slices_is_refused(root, tmp_path):
    for path in root.glob("**/*"):
        if path.is_file():
            (tmp_path / path.relative_to(root)).parent.mkdir(exist_ok=True)
            (tmp_path / path.relative_to(root)).write_bytes(path.read_bytes())
    table = (root / "slices.csv").read_text().replace("CT004,23,0,\n", "")
    (tmp_path / "slices.csv").write_text(table)
    with pytest.raises(InputError, match=r"CT004: slices.csv tells of 23 slices; the scan has 24"):
        open_slices("ct", 32, root=str(tmp_path), cache=tmp_path / "cache")


def test_figures_are_those_of_scikit_learn_and_leave_other_kinds_out(slices):
    values = np.random.default_rng(0).normal(size=len(slices))
    rows = {
        (row["level"], row["kind"]): row
        for row in diagnosis.rows_of(diagnosis.count_findings({"map": values}, slices))
    }
    has, is_one = slices.kinds != "", np.char.find(slices.kinds, "epidural") >= 0
    kept = is_one | ~has
    for kind, truth, scores in (("all", has, values), ("epidural", is_one[kept], values[kept])):
        row = rows["slice", kind]
        assert row["auroc"] == pytest.approx(roc_auc_score(truth, scores))
        assert row["ap"] == pytest.approx(average_precision_score(truth, scores))
        assert row["low"] <= row["auroc"] <= row["high"]
        assert (row["n"], row["n_without"]) == (truth.sum(), (~has).sum())
    patients = np.unique(slices.patients)
    highest = [values[slices.patients == name].max() for name in patients]
    is_found = [has[slices.patients == name].any() for name in patients]
    assert rows["patient", "all"]["auroc"] == pytest.approx(roc_auc_score(is_found, highest))


def test_a_run_writes_both_scores_of_both_levels_and_every_kind(run):
    rows = run()
    found = {(row["method"], row["split"]) for row in rows}
    assert found == {("mimood-default", "test"), ("mimood-default", "val and test"), ("bright", "test")}
    told = {
        (row["score"], row["level"], row["kind"]): float(row["auroc"])
        for row in rows
        if row["method"] == "bright"
    }
    assert len(told) == 2 * 2 * 3
    assert told["map", "slice", "all"] > 0.9 > 0.5 > told["classifier", "slice", "all"]
    assert told["map", "patient", "all"] == 1
    assert {row["parameters"] for row in rows if row["method"] == "bright"} == {'{"bright": true}'}


def test_a_finished_method_is_not_run_again(run):
    first, before = run("--methods", "bright"), Counted.fits
    assert run("--methods", "bright") == first
    assert Counted.fits == before


def test_tables_are_rendered_with_intervals_and_differences(run, tmp_path):
    run()
    text = report.render(tmp_path / "results")
    assert "of val and test with haemorrhage" in text
    assert "epidural (" in text
    assert "minus each on test, with 95 % intervals" in text
    differences = records.read_table(tmp_path / "results" / "ct_differences.csv")
    same = [row for row in differences if (row["score"], row["metric"]) == ("map", "auroc")]
    assert {row["mean"] for row in same} == {"0"}  # the rival is ours
    assert {row["minus"] for row in differences} == {"bright"}
