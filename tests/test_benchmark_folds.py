"""Cross-validation over patients: how they are divided, what is pooled, and the command that goes fold by fold."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from benchmark_toys import TOY, Brightness, toy_patient
from phantom_layouts import write_layout

from benchmarks import records
from benchmarks.__main__ import main
from benchmarks.commands import accuracy, cross_validation
from benchmarks.data.folds import fold_of
from benchmarks.data.slices import join
from benchmarks.data.sources import open_slices
from benchmarks.protocol import pooling, summary
from skmimood import metrics
from skmimood.exceptions import InputError


@pytest.fixture
def pool():
    """Eight patients with three slices to learn from each, and six to evaluate, three of them with a lesion."""
    parts = []
    for i in range(8):
        slices = toy_patient(f"p{i}", "test", 3, seed=i, value=0.7 + 0.05 * i)
        parts += [replace(slices, splits=np.full(6, "train"))[3:], slices]
    return join(parts)


def test_every_patient_is_tested_on_once_and_never_learned_from_in_the_same_fold(pool):
    folds = [fold_of(pool, i, 4) for i in range(4)]
    tested = [{*fold.patients[fold.splits == "test"]} for fold in folds]
    assert sorted(name for names in tested for name in names) == sorted({*pool.patients})
    for fold, test in zip(folds, tested, strict=True):
        split_of = [{*fold.patients[fold.splits == split]} for split in ("train", "val", "test")]
        assert [len(names) for names in split_of] == [5, 1, 2]
        assert len(set.union(*split_of)) == 8
        assert not {*fold.training().patients} & test
    # A patient of val is tested on in the next fold.
    assert {*folds[0].patients[folds[0].splits == "val"]} < tested[1]


def test_a_fold_takes_slices_to_learn_from_or_to_evaluate_never_both(pool):
    fold = fold_of(pool, 0, 4)
    assert (fold.splits == "train").sum() == 5 * 3
    assert (fold.splits == "test").sum() == 2 * 6
    assert fold.tumour("test").has_lesion.sum() == 2 * 3
    assert fold.fingerprint() == fold_of(pool, 0, 4).fingerprint() != fold_of(pool, 1, 4).fingerprint()


@pytest.mark.parametrize("n_folds", [2, 5])
def test_folds_without_patients_enough_are_refused(pool, n_folds):
    with pytest.raises(InputError, match="8 patients cannot be dealt"):
        fold_of(pool, 0, n_folds)


def maps_of(pool, change=lambda maps, fold: maps):
    """Return folds with the slices themselves as maps, changed fold by fold."""
    parts = []
    for i in range(4):
        fold = fold_of(pool, i, 4)
        val, test = (change(fold.evaluated(split).images, i) for split in ("val", "test"))
        parts.append((fold, pooling.FoldMaps(val, test, [], {"seconds_per_32": 1.0})))
    return parts


def test_a_scale_of_its_own_in_every_fold_changes_nothing(pool):
    one = pooling.pool(maps_of(pool))
    other = pooling.pool(maps_of(pool, lambda maps, fold: maps * np.float32(2.0**fold)))
    assert one.rows == other.rows
    assert [run["scale"] * 2**i for i, run in enumerate(one.runs)] == [run["scale"] for run in other.runs]


def test_pooled_figures_are_those_of_all_patients_and_each_fold_has_its_own_threshold(pool):
    parts = maps_of(pool)
    pooled = pooling.pool(parts)
    tests = [slices.evaluated("test") for slices, _ in parts]
    scaled = [maps.test / np.float32(run["scale"]) for (_, maps), run in zip(parts, pooled.runs, strict=True)]
    test, maps = join(tests), np.concatenate(scaled)
    row = next(row for row in pooled.rows if row["slices"] == "head" and row["level"] == "pixel")
    assert row["ap"] == pytest.approx(metrics.average_precision(test.lesions, maps))
    called = []
    for slices, of_fold in parts:
        tumour = slices.tumour("val")
        val = of_fold.val[slices.evaluated("val").has_lesion]
        called.append(of_fold.test > metrics.best_dice(tumour.lesions, val, return_threshold=True)[1])
    expected = metrics.dice_at_threshold(test.lesions, np.concatenate(called), 0.5)
    assert row["dice_at_val_threshold"] == pytest.approx(expected)
    assert {place: len(counts.patients) for place, counts in pooled.counts.items()} == dict.fromkeys(
        [(slices, region) for slices in ("tumour", "head") for region in ("all", "interior")], 8
    )


def test_what_is_told_of_a_fold_is_of_its_test_patients_alone(pool):
    parts = maps_of(pool)
    slices, of_fold = parts[2]
    test = slices.evaluated("test")
    tumour = test.has_lesion
    expected = metrics.average_precision(test.lesions[tumour], of_fold.test[tumour])
    assert pooling.pool(parts).runs[2]["ap"] == pytest.approx(expected)


def test_the_scale_is_a_high_quantile_of_healthy_pixels_and_never_0(pool):
    val = fold_of(pool, 0, 4).evaluated("val")
    maps = np.where(val.lesions, 100, val.head).astype(np.float32)
    assert pooling.healthy_scale(maps, val) == 1.0
    maps *= 0
    assert pooling.healthy_scale(maps, val) == 1.0
    row, column = np.argwhere(val.head[-1])[0]
    maps[-1, row, column] = 7.0
    assert pooling.healthy_scale(maps, val) == 7.0


def test_maps_are_filtered_scan_by_scan_in_the_order_of_its_slices(pool):
    slices = fold_of(pool, 0, 4).evaluated("test")
    slices = slices[np.random.default_rng(0).permutation(len(slices))]
    slices = slices[~((slices.patients == slices.patients[0]) & (slices.index == 2))]
    seen = []

    def upwards(stack, distance, present):
        seen.append((stack.shape[0], distance, [*present]))
        return np.cumsum(stack, 0)

    maps = np.ones(slices.images.shape, np.float32)
    result = pooling.filtered(maps, slices, upwards)
    whole, gap = [True] * 6, [True, True, False, True, True, True]
    assert sorted(seen) == sorted([(6, 5.0, whole), (6, 5.0, gap)])
    is_after_gap = (slices.patients == slices.patients[0]) & (slices.index > 2)
    np.testing.assert_array_equal(result[:, 0, 0], slices.index + 1 - is_after_gap)


def test_tokens_and_scores_of_a_method_s_own_are_means_over_folds(pool):
    place = {"slices": "head", "level": "image", "region": "classifier"}
    parts = [
        (slices, replace(maps, rows=[place | {"best_dice": 0.5, "ap": 0.1 * i, "auroc": 0.5}]))
        for i, (slices, maps) in enumerate(maps_of(pool))
    ]
    (row,) = [row for row in pooling.pool(parts).rows if row["region"] == "classifier"]
    assert row["ap"] == pytest.approx(0.15)


def test_counts_are_kept_to_the_last_pixel(pool, tmp_path):
    counts = pooling.pool(maps_of(pool)).counts
    told = {"dataset": "toy-cv", "method": "mimood-default", "seed": 3, "preset": "tiny", "device": "CPU"}
    summary.save_counts(tmp_path, told, counts)
    summary.save_counts(tmp_path, told | {"method": "mimood", "device": "GPU"}, counts)
    table = {key: told[key] for key in ("dataset", "preset", "device")}
    found = summary.load_counts(tmp_path, table, ["mimood", "mimood-default"])
    assert {name: [*seeds] for name, seeds in found.items()} == {"mimood-default": [3]}
    for place, one in found["mimood-default"][3].items():
        for name, values in vars(counts[place]).items():
            np.testing.assert_array_equal(getattr(one, name), values)


def test_methods_scored_on_other_slices_are_not_subtracted(pool, tmp_path):
    counts = pooling.pool(maps_of(pool)).counts
    other = pooling.pool(maps_of(pool[pool.index != 0])).counts
    told = {"dataset": "toy-cv", "preset": "tiny", "device": "CPU"}
    summary.write_summary(
        tmp_path,
        told,
        {"mimood": {0: counts}, "mimood-default": {0: counts}, "dae": {0: counts}, "mae": {0: other}},
    )
    rows = records.read_table(tmp_path / "toy-cv_differences.csv")
    assert {(row["method"], row["minus"]) for row in rows} == {
        ("mimood", "mimood-default"), ("mimood", "dae"), ("mimood-default", "dae")
    }  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch, pool):
    """Return a function that runs the command over 4 folds of the pool and returns the rows of a result table."""
    pool.save(tmp_path / "pool.npz")
    for module in (accuracy, cross_validation):
        monkeypatch.setattr(module, "METHODS", {"toy": TOY, "other": TOY})
    monkeypatch.setattr(summary, "OURS", ("other",))
    monkeypatch.setattr(records, "commit", lambda: "abc1234")

    def command(*arguments, table=""):
        options = [
            "accuracy",
            "--data",
            "phantom",
            "--folds",
            "4",
            "--device",
            "cpu",
            "--seeds",
            "0",
            *arguments,
        ]
        for name in ("cache", "results"):
            options += [f"--{name}", str(tmp_path / name)]
        monkeypatch.setattr(sys, "argv", ["benchmarks", *options, "--slices", str(tmp_path / "pool.npz")])
        main()
        return records.read_table(tmp_path / "results" / f"phantom-cv{table}.csv")

    return command


def test_some_folds_alone_write_nothing_and_the_last_one_everything(run, tmp_path):
    before = Brightness.calls["fit"]
    assert run("--methods", "toy", "--fold", "0", "2") == []
    assert not (tmp_path / "results").exists()
    assert run("--methods", "toy", "--fold", "3") == []
    rows = run("--methods", "toy", "--fold", "1")
    assert Brightness.calls["fit"] == before + 4
    assert {(row["dataset"], row["method"], row["split"], row["commit"]) for row in rows} == {
        ("phantom-cv", "toy", "test", "abc1234")
    }
    assert {row["slices"] for row in rows} >= {"tumour", "head", "small", "bright"}
    assert run("--methods", "toy") == rows
    assert Brightness.calls["fit"] == before + 4
    run("--methods", "toy", "--fold", "1", "--again")
    assert Brightness.calls["fit"] == before + 5


def test_each_fold_has_a_row_of_its_own(run):
    rows = run("--methods", "toy", table="_runs")
    assert [row["fold"] for row in rows] == ["0", "1", "2", "3"]
    assert {row["parameters"] for row in rows} == {'{"bright": true}'}
    assert all(float(row["ap"]) > 0 for row in rows)


def test_a_rival_that_is_added_later_is_subtracted_without_training_ours_again(run, tmp_path):
    run("--methods", "other")
    before = Brightness.calls["fit"]
    for file in (tmp_path / "cache" / "folds").iterdir():
        file.unlink()
    rows = run("--methods", "toy", table="_differences")
    assert Brightness.calls["fit"] == before + 4
    assert {(row["method"], row["minus"], float(row["mean"])) for row in rows} == {("other", "toy", 0.0)}
    assert {row["metric"] for row in rows} == {*records.METRICS}


def test_a_fold_that_there_is_not_is_refused_before_any_training(run):
    before = Brightness.calls["fit"]
    with pytest.raises(SystemExit, match="Of 4 folds there is no 4; they are 0 to 3"):
        run("--fold", "4")
    assert Brightness.calls["fit"] == before


def test_a_file_of_other_slices_and_data_without_patients_are_refused(pool, tmp_path):
    pool.save(tmp_path / "pool.npz")
    with pytest.raises(InputError, match="all patients for folds"):
        open_slices("phantom", 64, cache=tmp_path, file=tmp_path / "pool.npz")
    with pytest.raises(InputError, match="no patients to divide"):
        open_slices("phantom", 64, cache=tmp_path, pooled=True)


def test_a_pool_has_every_patient_whatever_their_split_and_is_cut_once(tmp_path, monkeypatch):
    root, cache = tmp_path / "lgg", tmp_path / "cache"
    write_layout(root, "lgg", n_healthy=3, n_lesions=3, size=32, n_slices=8, lesions=["bright"])
    pool = open_slices("lgg", 32, root=str(root), cache=cache, pooled=True)
    learned, evaluated = (pool[pool.splits == split] for split in ("train", "test"))
    assert (
        {*learned.patients}
        == {*evaluated.patients}
        == {path.name for path in root.iterdir() if path.is_dir()}
    )
    assert not learned.has_lesion.any()
    assert evaluated.has_lesion.any()
    (root / "splits.csv").write_text("subject,split\n")
    monkeypatch.setattr("benchmarks.data.sources.pool_of", None)
    again = open_slices("lgg", 32, root=str(root), cache=cache, pooled=True)
    assert again.fingerprint() == pool.fingerprint()


def test_slices_know_their_place_in_the_scan_and_its_distance_to_the_next(tmp_path):
    write_layout(tmp_path / "lgg", "lgg", n_healthy=2, n_lesions=2, size=32, n_slices=8, lesions=["bright"])
    pool = open_slices("lgg", 32, root=str(tmp_path), cache=tmp_path, pooled=True)
    one = pool[(pool.patients == pool.patients[0]) & (pool.splits == "test")]
    assert [*one.index] == [*range(one.index[0], one.index[0] + len(one))]
    assert len({*pool.distance}) == 1
    assert 10 < pool.distance[0] < 20  # eight slices of a head


def test_a_fold_of_a_method_with_tokens_tells_of_them_and_what_was_chosen(pool, quick_pipeline):
    fold = fold_of(pool, 0, 4)
    of_fold = pooling.run_fold(
        quick_pipeline, {"inpainter__maps__residual": ["absolute", "positive"]}, fold, None
    )
    assert {(row["slices"], row["level"]) for row in of_fold.rows} == {("tumour", "token"), ("head", "token")}
    assert of_fold.run["parameters"].startswith('{"inpainter__maps__residual"')
    assert of_fold.run["n_training_slices"] == len(fold.training())
    assert of_fold.val.shape == fold.evaluated("val").images.shape
    np.testing.assert_array_equal(
        of_fold.test, quick_pipeline.decision_function(fold.evaluated("test").images)
    )
