"""Cohorts and searches on joblib's backends: the same results, and none lost with a worker."""

import uuid
import warnings

import joblib
import numpy as np
import pytest
from command_line import rows, run, status
from conftest import make_slices, small_steps
from deadly_worker import DEADLY, die, done_or_die, score_or_die
from rounding import assert_same
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from toy_scans import MedianRestorer, image, make

from skmimood.exceptions import InputError, SkmimoodWarning, WorkerError
from skmimood.jobs import scoring
from skmimood.jobs.scoring import ScoreJob, score_scans
from skmimood.jobs.workers import DIED_TWICE, run_in_workers
from skmimood.nifti import write_image
from skmimood.scans import ScanDetector

pytestmark = pytest.mark.filterwarnings("ignore:A worker stopped while some jobs")  # of loky, where one dies


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for number in range(4):
        write_image(image(20 + number, lesion=number > 1), folder / f"patient-{number}_T1.nii.gz")
    return folder


@pytest.fixture(scope="module")
def expected(model, scans, tmp_path_factory):
    """Return the results of a run in one process."""
    out = tmp_path_factory.mktemp("one") / "out"
    assert run("score", scans, "-m", model, "-o", out, "--quiet", "--no-report") == 0
    return out


def maps(out):
    return {path.name: path.read_bytes() for path in out.glob("*.nii.gz")}


def but_for_seconds(out):
    return {scan: {**row, "seconds": ""} for scan, row in rows(out).items()}


def test_two_workers_write_the_same_files_as_one_process(model, scans, expected, tmp_path, capsys):
    out = tmp_path / "out"
    (scans / "broken_T1.nii.gz").write_bytes(b"not an image")
    assert run("score", scans, "-m", model, "-o", out, "--jobs", 2, "--no-report") == 1
    (scans / "broken_T1.nii.gz").unlink()
    assert "[5/5]" in capsys.readouterr().out
    assert maps(out) == maps(expected)
    assert rows(out)["broken_T1"]["status"] == "failed"
    found = but_for_seconds(out)
    assert found.pop("broken_T1")["reason"]
    assert found == but_for_seconds(expected)
    assert not list(out.rglob("*.begun"))


def test_a_detector_maps_scans_in_two_workers_as_in_one(model, scans):
    detector = ScanDetector.load(model)
    alone = detector.decision_function(scans)
    detector.set_params(n_jobs=2)
    for one, other in zip(alone, detector.decision_function(scans), strict=True):
        np.testing.assert_array_equal(one.get_fdata(), other.get_fdata())
    np.testing.assert_array_equal(
        detector.score_samples(scans), detector.set_params(n_jobs=None).score_samples(scans)
    )


class Traced(MedianRestorer):
    """Notes in a folder that a process has unpickled it."""

    def __init__(self, folder):
        self.folder = folder

    def __setstate__(self, state):
        super().__setstate__(state)
        (self.folder / uuid.uuid4().hex).touch()


def test_a_worker_unpickles_the_detector_once_until_another_comes(scans, tmp_path):
    images = [image(seed) for seed in range(4)]
    detector = make(pipeline=Pipeline([("restorer", Traced(tmp_path))]), n_jobs=2).fit(images)
    for path in tmp_path.iterdir():
        path.unlink()
    detector.score_samples([scans, scans])
    n_fitted_and_not = 2 * len(detector.pipeline.steps)
    assert n_fitted_and_not <= len(list(tmp_path.iterdir())) <= 2 * n_fitted_and_not
    before = detector.score_samples([scans])
    detector.pipeline_[-1].median_ *= 0
    assert (detector.score_samples([scans]) > before).all()


def test_no_workers_at_all_are_refused():
    with pytest.raises(InputError, match="n_jobs must be None or a whole number other than 0"):
        make(n_jobs=0).fit([image(seed) for seed in range(4)])


@pytest.mark.numerics
def test_a_grid_search_in_two_workers_trains_each_fold_once(tmp_path):
    slices = make_slices(12)
    masks = np.zeros(slices.shape, bool)
    masks[:, 4:8, 4:8] = np.arange(12)[:, None, None] % 2
    search = GridSearchCV(
        Pipeline(small_steps(max_iter=2, memory=str(tmp_path))),
        {"inpainter__n_steps": [1, 2]},
        cv=2,
        refit=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)
        together = search.fit(slices, masks).cv_results_["mean_test_score"]
        n_trained = len(list(tmp_path.rglob("train_*/*/output.pkl")))
        alone = search.set_params(n_jobs=None).fit(slices, masks).cv_results_["mean_test_score"]
    assert n_trained == 2 * 3
    assert_same(together, alone)


def test_a_dask_cluster_scores_a_folder(model, scans, expected, tmp_path):
    distributed = pytest.importorskip("distributed")
    out = tmp_path / "out"
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        score_scans([scans], model, out, ScoreJob(report=False), say=lambda line: None)
        found = ScanDetector.load(model).score_samples(scans)
        before = maps(out)
        refused, lines = ScoreJob(report=False, overwrite=True, max_bytes=1000), []
        assert score_scans([scans], model, out, refused, say=lines.append).n_failed == 4
        assert "No scan can be scored, so the earlier results" in lines[-1]
        assert maps(out) == before == maps(expected)
        score_scans([scans], model, out, ScoreJob(report=False, overwrite=True), say=lambda line: None)
    assert maps(out) == before
    np.testing.assert_array_equal(found, ScanDetector.load(model).score_samples(scans))


def test_a_scan_whose_worker_dies_costs_nothing(model, scans, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "score_in_worker", score_or_die)
    out = tmp_path / "out"
    assert run("score", scans, "-m", model, "-o", out, "--jobs", 2, "--quiet", "--no-report") == 0
    assert (tmp_path / "met").exists()
    assert status(out)["state"] == "done"
    assert maps(out) == maps(expected)
    assert not list(out.rglob("*.begun"))


@pytest.mark.parametrize(("n_deaths", "n_attempts"), [(0, 1), (1, 2), (9, 2)])
def test_a_scan_that_kills_its_worker_is_tried_once_more_and_the_others_finish(
    n_deaths, n_attempts, tmp_path
):
    names = ["a", DEADLY, *"bcdef"]
    given_up = []
    outcomes = run_in_workers(
        done_or_die, {name: (name, tmp_path, n_deaths) for name in names}, n_jobs=2,
        is_begun=lambda scan: (tmp_path / f"{scan}.begun").exists(), give_up=given_up.append,
    )  # fmt: skip
    found = {outcome.id: outcome for outcome in outcomes}
    assert len((tmp_path / "attempts").read_text()) == n_attempts
    assert sorted(found) == sorted(names)
    failed = {scan: outcome.reason for scan, outcome in found.items() if outcome.status == "failed"}
    assert failed == ({DEADLY: DIED_TWICE} if n_deaths > 1 else {})
    assert set(given_up) == set(failed)


def test_workers_that_die_before_they_begin_are_an_error():
    outcomes = run_in_workers(die, {"scan": ("task",)}, n_jobs=2, is_begun=lambda scan: False, give_up=print)
    with pytest.raises(WorkerError, match="Start fewer"):
        list(outcomes)
