import pytest
import torch
from conftest import build, make_slices

from skmimood.baselines import AsymmetricStudentTeacher
from skmimood.exceptions import InputError
from skmimood.networks.flow import FlowAndStudent
from skmimood.networks.weights import new_network


def small(**parameters) -> AsymmetricStudentTeacher:
    common = {
        "channels": 8, "depth": 3, "flow_width": 4, "student_width": 4, "backbone_max_iter": 60, "learning_rate": 3e-3,
        "warmup_iter": 10, "validation_fraction": 0.25, "precision": "float32", "random_state": 0, "max_iter": 11,
    }  # fmt: skip
    return build(AsymmetricStudentTeacher, **{**common, **parameters})


@pytest.fixture
def network():
    config = {
        "feature_width": 5, "level": 0, "n_couplings": 2, "flow_width": 6, "n_blocks": 1, "student_width": 6,
        "widths": [2, 5],
    }  # fmt: skip
    network = new_network(FlowAndStudent, config, torch.Generator().manual_seed(0))
    for coupling in network.teacher:  # a new flow is the identity
        for subnet in coupling.subnets:
            torch.nn.init.normal_(subnet[-1].weight, std=0.1, generator=torch.Generator().manual_seed(1))
    return network.double()


def test_the_jacobian_of_the_flow_is_that_of_its_derivatives(network):
    features = torch.rand(1, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    derivatives = torch.autograd.functional.jacobian(lambda x: network.flow(x)[0], features)
    _, log_jacobian = network.flow(features)
    expected = torch.linalg.slogdet(derivatives.reshape(60, 60)).logabsdet
    assert expected.abs() > 0.1
    assert log_jacobian.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_likelihood_of_a_flow_that_is_the_identity_is_that_of_normal_numbers(network):
    for coupling in network.teacher:
        for subnet in coupling.subnets:
            torch.nn.init.zeros_(subnet[-1].weight)
    images = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    expected = network.features(images).square().mean((1, 2, 3)) / 2
    torch.testing.assert_close(network(images, True), expected)


def test_features_of_the_training_slices_are_standardised(healthy):
    detector = small().fit(healthy)  # of which 48 train
    with torch.inference_mode():
        features = detector._network().features(torch.from_numpy(healthy[:48, None]))
    assert features.mean((0, 2, 3)).abs().max() < 1e-4
    scales = features.std((0, 2, 3))
    assert scales.max() < 1.001
    assert (scales > 0.99).sum() > len(scales) / 2  # those that vary least are not blown up


@pytest.mark.parametrize(("level", "fault"), [(2, "has 2 feature maps"), (9, "Lower level")])
def test_a_level_that_the_backbone_has_not_is_refused(level, fault):
    with pytest.raises(InputError, match=fault):
        small(level=level, backbone_max_iter=1).fit(make_slices(8))
