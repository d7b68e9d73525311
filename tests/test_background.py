"""Tokens off the head: which they are, and that leaving them out changes nothing about them."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from conftest import as_if_fitted_with, build, make_slices
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from skmimood import VQTokenizer
from skmimood.networks.marks import in_order_of_length, lengths, masks_on_head, unmark
from skmimood.networks.transformer import TokenTransformer
from skmimood.networks.weights import new_network
from skmimood.tokens.background import mark_background


def test_tokens_off_the_head_are_marked_but_for_a_margin_of_one():
    images = np.zeros((1, 32, 32), np.float32)
    images[0, 12:20, 12:20] = 0.5  # 2 x 2 tokens of 4 pixels
    tokens = torch.arange(64).view(1, 8, 8)
    marked = mark_background(tokens, images, 4)
    near = torch.zeros(1, 8, 8, dtype=torch.bool)
    near[:, 2:6, 2:6] = True
    assert torch.equal(marked >= 0, near)
    assert torch.equal(unmark(marked), tokens)


def test_a_head_in_a_token_that_reaches_beyond_the_image_counts():
    images = np.zeros((1, 30, 30), np.float32)
    images[0, 22:, 22:] = 0.5
    marked = mark_background(torch.zeros(1, 8, 8, dtype=torch.int64), images, 4)
    assert (marked[0, 4:, 4:] == 0).all()
    assert (marked < 0).sum() == 48


def test_of_a_slice_without_a_head_nothing_is_marked():
    tokens = torch.zeros(1, 8, 8, dtype=torch.int64)
    assert torch.equal(mark_background(tokens, np.zeros((1, 32, 32), np.float32), 4), tokens)


def test_a_training_mask_keeps_to_the_head_and_never_becomes_empty():
    tokens = torch.full((2, 8, 8), ~3)
    tokens[:, :2] = 3
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, 1:4, 0] = masks[1, 5] = True
    expected = torch.zeros(2, 8, 8, dtype=torch.bool)
    expected[0, 1, 0] = expected[1, :2] = True
    assert not masks_on_head(torch.zeros_like(masks), tokens).any()
    assert torch.equal(masks_on_head(masks, tokens), expected)


def test_lengths_are_multiples_of_32_up_to_the_grid():
    tokens = torch.full((4, 8, 9), -1)
    for row, n_kept in enumerate((1, 32, 33, 70)):
        tokens[row].view(-1)[:n_kept] = 5
    assert lengths(tokens).tolist() == [32, 32, 64, 72]


def test_grids_in_order_of_length_can_be_put_back():
    tokens = torch.full((3, 8, 8), -1)
    tokens[0], tokens[2] = 7, 0
    tokens[1, 0, :5] = 1
    ordered, where = in_order_of_length(tokens)
    assert lengths(ordered).tolist() == [32, 64, 64]
    assert torch.equal(ordered[where], tokens)


@pytest.fixture(scope="module")
def heads():
    """Return slices whose heads fill a quarter of the frame."""
    small = make_slices(5, seed=7)[:, ::2, ::2]
    return np.pad(small, ((0, 0), (0, 16), (0, 16)))


def test_training_tokens_are_marked_by_the_heads_of_the_slices_moved_with_them(heads):
    common = {"n_codes": 32, "code_dim": 8, "channels": 16, "channel_multipliers": (1, 2), "max_iter": 1}
    tokenizer = build(
        VQTokenizer, n_augmentations=2, standardize=True, random_state=0, warmup_iter=0, **common
    ).fit(heads)
    scans = tokenizer.transform(heads)
    whole, marked = (tokenizer.training_tokens(scans, marked=marked) for marked in (False, True))
    np.testing.assert_array_equal(np.where(marked < 0, ~marked, marked), whole)
    seen_as = mark_background(torch.from_numpy(scans.tokens), scans.images, 4).numpy()
    np.testing.assert_array_equal(marked[:, 0], seen_as)
    assert (marked[:, 1:] < 0).mean() == pytest.approx((seen_as < 0).mean(), abs=0.15)
    assert ((marked[:, 1] < 0) != (seen_as < 0)).any()
    tokens, shares = tokenizer.painted_tokens(scans, 3)
    marked, _ = tokenizer.painted_tokens(scans, 3, marked=True)
    np.testing.assert_array_equal(np.where(marked < 0, ~marked, marked), tokens)
    assert (marked < 0).mean() > 0.2
    assert shares[marked >= 0].mean() > shares[marked < 0].mean()


def test_what_is_left_out_is_not_resampled_and_scores_0(fitted, heads):
    scans = fitted[0].transform(heads)
    off = (mark_background(torch.from_numpy(scans.tokens), heads, 4) < 0).numpy()
    pipeline = copy.deepcopy(fitted).set_params(detector__threshold=0.0)
    as_if_fitted_with(pipeline, detector__skip_background=True, inpainter__skip_background=True)
    found = pipeline[1].transform(scans)
    restored = pipeline[2].restore(found)
    assert off.mean() > 0.4
    assert (found.anomaly[off] == 0).all()
    assert (found.anomaly[~off] > 0).all()
    changed = (restored != scans.tokens[:, None]).any(1)
    assert not changed[off].any()
    assert changed[~off].any()


def test_replaced_tokens_are_found_and_healed_by_networks_that_leave_out_the_background(fitted, healthy):
    detector, inpainter = (clone(fitted[step]).set_params(skip_background=True) for step in (1, 2))
    scans = fitted[0].transform(np.pad(healthy[:, ::2, ::2], ((0, 0), (0, 16), (0, 16))))
    detector.fit(scans)
    inpainter.fit(detector.transform(scans)).set_params(n_restorations=1, temperature=0.1)
    near = (mark_background(torch.from_numpy(scans.tokens), scans.images, 4) >= 0).numpy()
    rng = np.random.default_rng(0)
    tokens = np.where(rng.random(near.shape) < 0.1, rng.integers(0, 32, near.shape), scans.tokens)
    changed = tokens != scans.tokens
    found = detector.transform(dataclasses.replace(scans, tokens=tokens))
    assert roc_auc_score(changed[near], found.anomaly[near]) > 0.85
    restored = inpainter.restore(found)[:, 0]
    assert (restored == scans.tokens)[changed & near].mean() > 0.3


def test_gradients_where_tokens_are_left_out_are_the_same_bytes_with_two_threads():
    sizes = {"depth": 1, "width": 128, "n_heads": 2, "mlp_ratio": 1.0, "drop_path": 0.0}
    generator = torch.Generator().manual_seed(0)
    config = {"n_inputs": 65, "n_outputs": 64, "grid": (16, 16), **sizes}
    network = new_network(TokenTransformer, config, generator)
    tokens = torch.randint(0, 64, (16, 16, 16), generator=generator)
    tokens = torch.where(torch.rand(tokens.shape, generator=generator) < 0.4, ~tokens, tokens)
    target = torch.randint(0, 64, (16, 160), generator=generator)

    def gradient():
        network.zero_grad()
        logits = network(tokens, length=160).view(16, 256, 64)[:, :160]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten()).backward()
        return network.position.grad.clone()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(5))
    finally:
        torch.set_num_threads(before)
