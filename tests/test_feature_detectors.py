"""What both detectors that learn from the features of a frozen backbone must do."""

import numpy as np
import pytest
from conftest import build, make_slices
from sklearn.metrics import average_precision_score, roc_auc_score

from skmimood.baselines import AsymmetricStudentTeacher, ReverseDistillation

COMMON = {
    "channels": 8, "depth": 3, "backbone_max_iter": 60, "learning_rate": 3e-3, "warmup_iter": 10,
    "validation_fraction": 0.25, "precision": "float32", "random_state": 0, "max_iter": 100,
}  # fmt: skip
OWN = {
    ReverseDistillation: {},
    AsymmetricStudentTeacher: {"flow_width": 16, "n_couplings": 2, "student_width": 16, "n_blocks": 2},
}
LIMITS = {  # area under the ROC curve, average precision over chance, share of the loss that is left
    ReverseDistillation: (0.95, 12, 0.3),
    AsymmetricStudentTeacher: (0.92, 8, 0.5),
}
STEPS = {
    ReverseDistillation: {"loss": 100, "backbone_loss": 60},
    AsymmetricStudentTeacher: {"loss": 100, "teacher_loss": 100, "backbone_loss": 60},
}


@pytest.fixture(scope="module", params=OWN, ids=lambda kind: kind.__name__)
def detector(request, healthy):
    return build(request.param, **COMMON, **OWN[request.param]).fit(healthy)


def test_a_planted_lesion_scores_higher_than_its_surroundings(detector, dark_lesions):
    slices, masks = dark_lesions
    maps = detector.decision_function(slices)
    area, precision, _ = LIMITS[type(detector)]
    assert roc_auc_score(masks.ravel(), maps.ravel()) > area
    assert average_precision_score(masks.ravel(), maps.ravel()) > precision * masks.mean()


def test_teacher_and_student_part_in_lesions_and_nowhere_else(detector, dark_lesions):
    slices, masks = dark_lesions
    healthy = detector.decision_function(make_slices(12, seed=3))
    maps = detector.decision_function(slices)
    assert maps[masks].mean() > 3 * healthy[masks].mean()
    assert maps.min() >= 0
    assert detector.predict(make_slices(40, seed=4)).mean() < 0.03


def test_it_heals_nothing_and_says_so_by_returning_the_slices(detector, dark_lesions):
    assert np.array_equal(detector.transform(dark_lesions[0]), dark_lesions[0])


def test_no_result_depends_on_the_other_slices(detector, dark_lesions):
    slices, _ = dark_lesions
    together = detector.decision_function(slices)
    np.testing.assert_allclose(detector.decision_function(slices[5:6])[0], together[5], atol=1e-5)


def test_every_training_leaves_its_history_in_which_its_loss_falls(detector):
    histories = {name: detector.history_[name] for name in STEPS[type(detector)]}
    assert {name: len(losses) for name, losses in histories.items()} == STEPS[type(detector)]
    assert detector.n_iter_ == sum(STEPS[type(detector)].values())
    assert histories["loss"][-1] < LIMITS[type(detector)][2] * histories["loss"][0]
    assert all(losses[-1] < losses[0] for losses in histories.values())
