"""The restorations and maps are those of the plain reading of the algorithm, in bounded memory."""

import copy
import pickle

import numpy as np
import pytest
import torch
from conftest import as_if_fitted_with, make_slices, plant_lesions
from rounding import assert_same

from benchmarks.timing.plain_reading import at_precision, plain_maps, plain_restore
from skmimood.networks.transformer import Block, TokenTransformer
from skmimood.networks.weights import new_network
from skmimood.runtime.streams import Streams
from skmimood.tokens import base
from skmimood.tokens.background import mark_background
from skmimood.training import estimator


@pytest.fixture(scope="module")
def slices():
    """Return healthy slices, whose masks are soon or always empty, between slices with a lesion."""
    healthy = make_slices(8, seed=3)
    return np.where(np.arange(8)[:, None, None] % 2, plant_lesions(healthy)[0], healthy)


def in_a_corner(slices):
    """Return slices of which but a corner of 8 x 8 pixels is a head."""
    corner = np.zeros_like(slices)
    corner[:, 4:12, 4:12] = slices[:, 12:20, 14:22] + 0.2
    return corner.clip(0, 1)


@pytest.fixture
def passed(monkeypatch):
    """Return a list to which every block of a token transformer adds the length of what it got."""
    found = []
    forward = Block.forward

    def counting(self, x, generator):
        found.append(x.shape[1])
        return forward(self, x, generator)

    monkeypatch.setattr(Block, "forward", counting)
    return found


@pytest.fixture
def pipeline(fitted):
    """Return a copy of the fitted pipeline that a test may change."""
    return pickle.loads(pickle.dumps(fitted))


def quantile_threshold(pipeline, slices, share):
    """Return the lambda that masks this share of the tokens."""
    return float(np.quantile(pipeline[:-1].transform(slices).anomaly, 1 - share))


@pytest.mark.numerics
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("share", [0.01, 0.2, 1.0])
def test_tokens_and_maps_are_those_of_the_plain_reading(pipeline, slices, precision, share):
    pipeline = at_precision(pipeline, precision)
    pipeline.set_params(
        detector__threshold=quantile_threshold(pipeline, slices, share) if share < 1 else 0.0,
        inpainter__n_restorations=4,
        inpainter__n_steps=4,
    )
    restored = pipeline[-1].restore(pipeline[:-1].transform(slices))
    assert_same(restored, plain_restore(pipeline, slices), precision)
    assert_same(pipeline.decision_function(slices), plain_maps(pipeline, slices), precision)
    assert share < 0.1 or (restored != pipeline[0].transform(slices).tokens[:, None]).any()


@pytest.mark.numerics
@pytest.mark.parametrize(
    "choices",
    [
        {"combination": "median", "residual_weight": "changed", "erosion": 2},
        {"combination": "min", "residual_weight": "anomaly"},
        {"combination": "mean", "residual": "positive", "min_filter": 1},
    ],
)
def test_maps_made_otherwise_are_those_of_the_plain_reading(pipeline, slices, choices):
    pipeline[-1].set_params(**{f"maps__{name}": value for name, value in choices.items()})
    assert_same(pipeline.decision_function(slices), plain_maps(pipeline, slices))


@pytest.mark.numerics
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_left_out_of_the_passes_is_that_of_the_plain_reading(pipeline, slices, precision, passed):
    slices = np.where(np.arange(8)[:, None, None] % 3, slices, in_a_corner(slices))
    pipeline = at_precision(pipeline, precision).set_params(inpainter__n_steps=4, detector__threshold=0.05)
    as_if_fitted_with(pipeline, detector__skip_background=True, inpainter__skip_background=True)
    restored = pipeline[-1].restore(pipeline[:-1].transform(slices))
    assert set(passed) == {32, 64}
    assert_same(restored, plain_restore(pipeline, slices), precision)
    assert_same(pipeline.decision_function(slices), plain_maps(pipeline, slices), precision)
    assert_same(
        pipeline[:-1].transform(slices[3:4]).anomaly[0], pipeline[:-1].transform(slices).anomaly[3], precision
    )


def test_what_is_marked_takes_no_part():
    generator = Streams.at(0, 0).torch
    sizes = {"depth": 3, "width": 64, "n_heads": 4, "mlp_ratio": 2.0, "drop_path": 0.0}
    network = new_network(
        TokenTransformer, {"n_inputs": 33, "n_outputs": 32, "grid": (8, 8), **sizes}, generator
    ).requires_grad_(False)
    tokens = torch.randint(0, 33, (1, 8, 8), generator=generator)
    kept = torch.randperm(64, generator=generator).view(1, 8, 8) < 32
    alone = copy.deepcopy(network)
    alone.position = torch.nn.Parameter(network.position[kept.flatten()])
    expected = alone(tokens[kept].view(1, 4, 8)).view(32, 32)
    marked = torch.where(kept, tokens, ~tokens)
    logits = network(marked, length=32)
    torch.testing.assert_close(logits[kept], expected)
    assert (logits[~kept] == 0).all()
    torch.testing.assert_close(network(marked, only=kept, length=32), logits[kept])
    torch.testing.assert_close(
        network(marked, length=64), network(tokens)
    )  # all are needed to fill the length up


@pytest.mark.numerics
@pytest.mark.parametrize("in_detector", [True, False])
@pytest.mark.parametrize("in_inpainter", [True, False])
def test_each_network_leaves_out_by_itself(pipeline, slices, in_detector, in_inpainter):
    slices = in_a_corner(slices)
    pipeline.set_params(inpainter__n_steps=3, detector__threshold=0.0)
    as_if_fitted_with(
        pipeline, detector__skip_background=in_detector, inpainter__skip_background=in_inpainter
    )
    scans = pipeline[:-1].transform(slices)
    restored = pipeline[-1].restore(scans)
    assert_same(restored, plain_restore(pipeline, slices))
    off = (mark_background(torch.from_numpy(scans.tokens), slices, 4) < 0).numpy()
    changed = (restored != scans.tokens[:, None]).any(1)
    assert changed[off].any() == (not in_detector and not in_inpainter)
    assert changed[~off].any()


@pytest.mark.numerics
def test_the_plain_reading_in_float32_leaves_the_pipeline_as_it_is(pipeline, slices):
    own, exact = plain_maps(pipeline, slices), at_precision(pipeline, "float32")
    np.testing.assert_array_equal(plain_maps(pipeline, slices), own)
    assert_same(exact.decision_function(slices), plain_maps(exact, slices))


@pytest.mark.numerics
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("n_wanted", [1, 3, 50, 256])
def test_logits_of_some_positions_are_those_of_all(precision, n_wanted):
    generator = Streams.at(0, 0).torch
    sizes = {"depth": 3, "width": 64, "n_heads": 4, "mlp_ratio": 2.0, "drop_path": 0.0}
    network = new_network(
        TokenTransformer, {"n_inputs": 33, "n_outputs": 32, "grid": (8, 8), **sizes}, generator
    )
    network = network.to(getattr(torch, precision)).requires_grad_(False)
    tokens = torch.randint(0, 33, (4, 8, 8), generator=generator)
    only = torch.randperm(256, generator=generator).view(4, 8, 8) < n_wanted
    assert_same(network(tokens, only=only).float(), network(tokens)[only].float(), precision)


def test_what_equal_restorations_have_in_common_is_computed_once(pipeline, slices, batches):
    pipeline.set_params(inpainter__n_steps=1, inpainter__n_restorations=8)
    scans = pipeline[:-1].transform(slices)
    batches.clear()
    pipeline[-1].restore(scans)
    assert sum(batches) <= len(slices)


def test_restorations_without_a_mask_pass_no_network(pipeline, slices, batches):
    scans = pipeline.set_params(detector__threshold=1.0)[:-1].transform(slices)
    batches.clear()
    pipeline[-1].restore(scans)
    assert batches == []


def test_a_healed_slice_is_decoded_once_whatever_r(pipeline, slices, monkeypatch):
    decoded = []
    run = estimator.run_in_batches

    def counting(function, rows, batch_size):
        decoded.append(len(rows))
        return run(function, rows, batch_size)

    scans = pipeline.set_params(detector__threshold=1.0, inpainter__n_restorations=16)[:-1].transform(slices)
    monkeypatch.setattr(estimator, "run_in_batches", counting)
    pipeline[-1].detect(scans)
    assert sum(decoded) <= len(slices)


def test_no_batch_grows_with_restorations_steps_or_slices(pipeline, slices, batches, monkeypatch):
    monkeypatch.setattr(base, "_IN_FLIGHT", 16)
    in_flight = []
    maps = base.residual_maps

    def counting(reference, healed, *arguments):
        in_flight.append(healed.shape[:2].numel())
        return maps(reference, healed, *arguments)

    monkeypatch.setattr(base, "residual_maps", counting)
    for n_restorations, n_steps, n_copies in ((2, 2, 1), (16, 2, 1), (2, 6, 1), (2, 2, 8)):
        pipeline[-1].set_params(n_restorations=n_restorations, n_steps=n_steps)
        pipeline.decision_function(np.tile(slices, (n_copies, 1, 1)))
        assert max(batches) <= 4
        assert max(in_flight) <= 16


@pytest.mark.numerics
def test_more_restorations_than_are_held_at_once_are_restored_in_parts(pipeline, slices, monkeypatch):
    pipeline[-1].set_params(n_restorations=7)
    expected = pipeline.decision_function(slices)
    monkeypatch.setattr(base, "_IN_FLIGHT", 3)
    assert_same(pipeline.decision_function(slices), expected)
