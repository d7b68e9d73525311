"""Scans and slices of one subject are never divided between training, validation and calibration."""

import json
import pickle
import warnings

import numpy as np
import pytest
from conftest import build, make_slices, plant_lesions, small_steps
from sklearn import config_context
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from toy_scans import MedianRestorer, Unchanged, image, make

from skmimood import VQTokenizer
from skmimood.baselines import DenoisingAutoencoder, MaskedAutoencoderDetector
from skmimood.exceptions import InputError, SkmimoodWarning
from skmimood.jobs.fitting import _say_summary
from skmimood.model_selection import RestorationSearchCV
from skmimood.nifti import write_image
from skmimood.scans.subjects import groups_in_table, groups_of
from skmimood.validation.images import healthy_samples

NUMBERED = np.arange(40.0).repeat(64).reshape(40, 8, 8)


class Listening(MedianRestorer):
    """Remembers which slices belong together."""

    def fit(self, X, y=None, groups=None):
        self.groups_ = groups
        return super().fit(X)


def write_sessions(folder, n_subjects=6, n_sessions=2):
    for subject in range(n_subjects):
        for session in range(n_sessions):
            path = folder / f"sub-{subject}" / f"ses-{session}" / f"sub-{subject}_ses-{session}_T1w.nii.gz"
            path.parent.mkdir(parents=True)
            write_image(image(10 * subject + session), path)
    return folder


def subjects(detector, status):
    return {line.id.partition("_")[0] for line in detector.fit_status_ if line.status == status}


@pytest.mark.parametrize(
    ("groups", "fraction", "held_out"),
    [
        (np.repeat(list("abcd"), 10), 0.25, range(30, 40)),
        (np.repeat(list("abcd"), 10), 0.01, ()),  # rounds to none
        (np.repeat(list("abcd"), 10), 0.1, range(30, 40)),  # at least one
        (np.repeat(list("abcd"), 10), 0.9, range(10, 40)),  # one is left to learn from
        (np.repeat(["x", "y", "z"], [20, 10, 10]), 0.35, range(30, 40)),
        (np.repeat(["x", "y", "z"], [20, 10, 10]), 0.4, range(20, 40)),
        (np.tile(["p", "q"], 20), 0.3, range(1, 40, 2)),  # not in a row
        ([("site", k // 10) for k in range(40)], 0.25, range(30, 40)),
    ],
)
def test_whole_groups_are_held_out_at_the_end(groups, fraction, held_out):
    ordered, share = healthy_samples(NUMBERED, None, groups, fraction)
    assert round(share * 40) == len(held_out)
    assert sorted(ordered[:, 0, 0]) == list(range(40))
    assert list(ordered[40 - len(held_out) :, 0, 0]) == list(held_out)
    assert (np.diff(ordered[: 40 - len(held_out), 0, 0]) > 0).all()


def test_without_groups_the_last_samples_are_held_out_and_samples_with_lesions_have_no_group():
    assert healthy_samples(NUMBERED, None, None, 0.1) == (pytest.approx(NUMBERED), 0.1)
    has_lesion = np.arange(40) >= 30
    ordered, share = healthy_samples(NUMBERED, has_lesion, np.repeat(list("abcd"), 10), 0.1)
    assert (len(ordered), round(30 * share)) == (30, 10)
    assert set(ordered[-10:, 0, 0]) == set(range(20, 30))


@pytest.mark.parametrize(
    ("groups", "fault"),
    [
        (["a"] * 39, "each of 40 samples; got 39"),
        ("a", "got 'a'"),
        ([None] * 40, "None or NaN"),
        ([*"ab" * 19, "a", " "], "is blank"),
        ({number: "a" for number in range(40)}, "got {0: 'a'"),
        (7, "got 7"),
    ],
)
def test_groups_that_do_not_fit_the_samples_are_refused(groups, fault):
    with pytest.raises(InputError, match=fault):
        healthy_samples(NUMBERED, None, groups, 0.1)


def test_one_group_alone_is_divided_with_a_warning():
    with pytest.warns(SkmimoodWarning, match="All healthy samples are of one group"):
        assert healthy_samples(NUMBERED, None, ["a"] * 40, 0.1)[1] == 0.1


def test_every_step_validates_on_whole_groups(monkeypatch):
    cuts, slices = [], make_slices(24)
    from skmimood.training import loop

    split = loop.split_validation
    monkeypatch.setattr(loop, "split_validation", lambda *sizes: cuts.append(split(*sizes)) or cuts[-1])
    groups = np.repeat([7, 3, 5], [4, 8, 12])
    pipe = Pipeline(small_steps(max_iter=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe.fit(slices, tokenizer__groups=groups, detector__groups=groups, inpainter__groups=groups)
        for one in (
            build(DenoisingAutoencoder, max_iter=1, device="cpu"),
            build(MaskedAutoencoderDetector, max_iter=1, classifier_max_iter=1, device="cpu"),
        ):
            one.fit(slices, groups=groups)
    assert len(cuts) >= 5
    assert {len(validation) for _, validation in cuts} == {12}


def test_groups_in_any_order_train_as_the_same_slices_in_a_row():
    slices, groups = make_slices(12), np.tile(["a", "b", "c"], 4)
    in_a_row = np.argsort(groups == "c", kind="stable")
    options = {"max_iter": 2, "random_state": 0, "channels": 8, "device": "cpu", "validation_fraction": 0.3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mixed = build(VQTokenizer, **options).fit(slices, groups=groups)
        ordered = build(VQTokenizer, **options).fit(slices[in_a_row], groups=groups[in_a_row])
    assert all(np.array_equal(mixed.state_[name], ordered.state_[name]) for name in mixed.state_)


def test_subjects_of_bids_are_held_out_as_wholes_and_count_once(tmp_path):
    detector = make(calibration_fraction=0.3, modality="T1w").fit(write_sessions(tmp_path))
    assert subjects(detector, "used").isdisjoint(subjects(detector, "calibration"))
    assert len(subjects(detector, "calibration")) == detector.reference_.n_scans == 2
    scans = {line.id: line.group for line in detector.fit_status_ if line.status == "calibration"}
    paths = {name: next(tmp_path.rglob(f"{name}.nii.gz")) for name in scans}
    scores = {}
    for name, group in scans.items():  # each against the other subject's pixels
        others = [paths[other] for other in scans if scans[other] != group]
        alone = pickle.loads(pickle.dumps(detector)).calibrate(others, scan_fpr=0.5)
        scores[group] = max(scores.get(group, 0.0), alone.detect_scan(paths[name]).score)
    assert detector.reference_.scan_scores == pytest.approx(sorted(scores.values()))
    assert {line.group for line in detector.fit_status_} == {f"sub-{k}" for k in range(6)}


def test_the_summary_of_a_fit_counts_subjects(tmp_path):
    detector, lines = make(calibration_fraction=0.3, modality="T1w").fit(write_sessions(tmp_path)), []
    _say_summary(detector, tmp_path / "model", 1.0, lines.append)
    assert "They are of 6 subjects or groups; none is both learned from and calibrated on." in lines
    assert any("2 held-out healthy scans of different subjects" in line for line in lines)


def test_groups_go_through_searches_and_through_metadata_routing():
    slices, patients = make_slices(24), np.repeat(list("abcdef"), 4)
    lesions, masks = plant_lesions(slices)
    is_ill = np.arange(24)[:, None, None] % 2 == 0
    X, y = np.where(is_ill, lesions, slices), masks * is_ill
    pipe = Pipeline(small_steps(max_iter=1, device="cpu"))
    groups = {f"{name}__groups": patients for name in pipe.named_steps}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)
        for search in (GridSearchCV, RestorationSearchCV):
            found = search(pipe, {"detector__threshold": [0.1]}, cv=GroupKFold(2), error_score="raise")
            assert found.fit(X, y, groups=patients, **groups).best_score_ > 0
        with config_context(enable_metadata_routing=True):
            asking = Pipeline([(name, step.set_fit_request(groups=True)) for name, step in pipe.steps])
            routed = asking.fit(slices, groups=patients).decision_function(slices[:2])
        assert np.array_equal(routed, pipe.fit(slices, **groups).decision_function(slices[:2]))


def test_the_draw_of_subjects_depends_on_names_and_seed_not_on_the_order(tmp_path):
    scans = sorted(write_sessions(tmp_path).rglob("*.nii.gz"))
    first, second = (make(calibration_fraction=0.3).fit(order) for order in (scans, scans[::-1]))
    assert subjects(first, "calibration") == subjects(second, "calibration")
    drawn = {frozenset(subjects(make(random_state=seed).fit(scans), "calibration")) for seed in range(3)}
    assert len(drawn) > 1


def test_given_groups_come_before_names_and_reach_the_steps_that_ask_for_them(tmp_path):
    scans = [image(seed) for seed in range(6)]
    pipeline = Pipeline([("nothing", Unchanged()), ("restorer", Listening())])
    for routing in (False, True):
        with config_context(enable_metadata_routing=routing):
            detector = make(pipeline=pipeline).fit(scans, groups=np.array([1, 1, 2, 2, 3, 3]))
        used = [line for line in detector.fit_status_ if line.status == "used"]
        groups = detector.pipeline_[-1].groups_
        assert list(groups) == [line.group for line in used for _ in range(line.n_slices)]
        assert len(groups) == detector.n_slices_
        assert {line.group for line in used} | {"1", "2", "3"} == {"1", "2", "3"}
        assert len({line.group for line in used}) == 2
    kept = make(pipeline=pipeline, max_slices=20).fit(scans, groups=list("aabbcc"))
    assert len(kept.pipeline_[-1].groups_) == len(kept.pipeline_[-1].seen_) == 20


@pytest.mark.parametrize("n_groups", [1, 2])
def test_scans_of_too_few_subjects_are_refused_with_the_cause(n_groups):
    groups = [f"patient{k % n_groups}" for k in range(6)]
    with pytest.raises(
        InputError, match=rf"at least 3 subjects.*6 usable scans are of {n_groups}: patient0.*groups"
    ):
        make().fit([image(seed) for seed in range(6)], groups=groups)


def test_calibration_warns_of_subjects_that_were_learned_from(tmp_path):
    detector = make(modality="T1w", calibration_fraction=0.3).fit(write_sessions(tmp_path / "a"))
    learned = min(subjects(detector, "used"))
    new_session, stranger = tmp_path / f"{learned}_ses-9_T1w.nii.gz", tmp_path / "sub-77_T1w.nii.gz"
    write_image(image(70), new_session)
    write_image(image(71), stranger)
    with pytest.warns(SkmimoodWarning, match=rf"others of their subjects.*{learned}_ses-9_T1w\."):
        detector.calibrate([new_session, stranger], scan_fpr=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.calibrate([stranger], scan_fpr=0.5)
        detector.calibrate([image(72), image(73)], groups=["new", "new"], fpr=0.01, scan_fpr=0.5)
    assert detector.reference_.n_scans == 1


def test_subjects_are_told_by_names_then_by_a_table_of_splits(tmp_path):
    (tmp_path / "splits.csv").write_text("Subject;split\nIXI1;train\nIXI2;test\n")
    paths = [
        "IXI1_a_T1.nii",
        "x/IXI1_b_T1.nii",
        "IXI2/T1.nii",
        "IXI12_T1.nii",
        "sub-3_T1.nii",
        "sub-3/ses-1/T1.nii",
    ]
    found = groups_of([tmp_path / path for path in paths])
    assert found[:3] == ["IXI1", "IXI1", "IXI2"]
    assert found[3] == "IXI12_T1"
    assert found[4:] == ["sub-3", "sub-3"]
    (tmp_path / "splits.csv").write_text("subject,split\nIXI1,train\nIXI1,test\n")
    with pytest.warns(SkmimoodWarning, match=r"not grouped by splits\.csv.*two splits"):
        assert len(set(groups_of([tmp_path / path for path in paths[:3]]))) == 3


def test_a_file_that_is_named_twice_is_taken_once_with_a_warning(tmp_path):
    scans = []
    for seed in range(4):
        scans.append(tmp_path / f"{seed}.nii.gz")
        write_image(image(seed), scans[-1])
    (tmp_path / "link.nii.gz").symlink_to(scans[0])
    with pytest.warns(SkmimoodWarning, match="3 of the files are named more than once"):
        detector = make().fit([*scans, scans[1], str(scans[2]), tmp_path / "link.nii.gz"], [None] * 7)
    assert [line.id for line in detector.fit_status_] == ["0", "1", "2", "3"]
    assert len(detector.score_samples([scans[0], scans[0]])) == 2


def test_a_table_of_groups_keeps_those_together_that_names_do_not(tmp_path):
    table = tmp_path / "families.csv"
    table.write_text("Subject;Group\ntwin-a;one\ntwin-b;one\nsub-3;two\n")
    paths = [
        tmp_path / f"{name}.nii"
        for name in ("twin-a_T1", "twin-b/T1", "sub-3_ses-1", "sub-4_ses-1", "twin-c")
    ]
    assert groups_in_table(paths, table) == ["one", "one", "two", "sub-4", "twin-c"]
    with pytest.raises(InputError, match=r"families\.csv lists none of the scans"):
        groups_in_table(paths[-1:], table)
    with pytest.raises(InputError, match="no table"):
        groups_in_table(paths, tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("sub-1,\nsub-2,x\n", "has no group for 'sub-1'"),
        (",x\nsub-2,x\n", "has a row without a subject"),
        ("sub-1,x\nsub-2,x\nsub-1,y\n", "has two groups for 'sub-1', x and y"),
        ("", "has no rows"),
    ],
)
def test_a_table_of_groups_with_blanks_or_contradictions_is_refused(tmp_path, rows, fault):
    (tmp_path / "groups.csv").write_text("subject,group\n" + rows)
    with pytest.raises(InputError, match=fault):
        groups_in_table([tmp_path / "sub-1_T1w.nii", tmp_path / "sub-2_T1w.nii"], tmp_path / "groups.csv")


def test_one_name_in_two_bids_data_sets_is_two_people_but_derivatives_are_of_the_same(tmp_path):
    for folder, kind in (("a/bids", "raw"), ("b/bids", "raw"), ("a/bids/derivatives/prep", "derivative")):
        (tmp_path / folder).mkdir(parents=True)
        about = json.dumps({"Name": "x", "DatasetType": kind})
        (tmp_path / folder / "dataset_description.json").write_text(about)
    names = (
        "a/bids/sub-1/anat/sub-1_T1w",
        "a/bids/derivatives/prep/sub-1/sub-1_desc-preproc_T1w",
        "b/bids/sub-1/anat/sub-1_T1w",
        "b/bids/sub-2/anat/sub-2_T1w",
        "c/sub-1_T1w",
    )
    found = groups_of([tmp_path / f"{name}.nii.gz" for name in names])
    assert found == ["a/bids/sub-1", "a/bids/sub-1", "b/bids/sub-1", "sub-2", "sub-1"]
    assert groups_of([tmp_path / f"{name}.nii.gz" for name in names[:2]]) == ["sub-1", "sub-1"]


def test_calibration_compares_given_groups_alone_so_that_namesakes_of_another_site_are_not_warned_about(
    tmp_path,
):
    detector = make(modality="T1w", calibration_fraction=0.3).fit(write_sessions(tmp_path / "a"))
    learned = min(subjects(detector, "used"))
    namesake = tmp_path / "b" / f"{learned}_ses-0_T1w.nii.gz"
    namesake.parent.mkdir()
    write_image(image(99), namesake)
    with pytest.warns(SkmimoodWarning, match="other people of the same names.*groups"):
        detector.calibrate([namesake], scan_fpr=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.calibrate([namesake], groups=["b/1"], scan_fpr=0.5)
    with pytest.warns(SkmimoodWarning, match="others of their subjects"):
        detector.calibrate([namesake], groups=[learned], scan_fpr=0.5)
