import torch

from skmimood.networks.distillation import ReverseDistiller
from skmimood.networks.weights import new_network


def test_a_student_that_returns_the_features_has_no_distance():
    config = {"feature_widths": [4, 8], "widths": [2, 4, 8]}
    network = new_network(ReverseDistiller, config, torch.Generator().manual_seed(0))
    images = torch.rand(2, 1, 30, 37)
    features = network.encoder(images)
    assert [one.shape for one in network(images)] == [(2, 16, 20), (2, 8, 10)]
    for head, one in zip(network.to_features, features[::-1], strict=True):
        head.forward = lambda x, one=one: 3 * one  # only the angle counts
    assert all(distance.abs().max() < 1e-5 for distance in network(images))
