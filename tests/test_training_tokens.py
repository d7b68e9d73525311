"""The tokens that token models train on take little memory, and training on them is the same to the bit."""

import tracemalloc

import numpy as np
import pytest
from conftest import small_steps

from skmimood.tokens import copies
from skmimood.tokens.copies import tokenize_copies
from skmimood.tokens.detector import train_token_detector
from skmimood.training.loop import Runtime


@pytest.mark.parametrize(
    ("n_codes", "kind"), [(16, "int8"), (128, "int8"), (129, "int16"), (32768, "int16"), (64_000, "int32")]
)
def test_tokens_and_their_marks_are_kept_in_the_smallest_integers(n_codes, kind):
    found = copies.type_of_tokens(n_codes)
    assert found == kind
    last = np.array([n_codes - 1])
    assert (~last).astype(found) == ~last


def test_painted_copies_are_compact_and_exact(fitted, healthy):
    scans = fitted[0].transform(healthy[:6])
    tokens, shares = fitted[0].painted_tokens(scans, 3)
    assert (tokens.dtype, shares.dtype) == (np.int8, np.float16)
    np.testing.assert_array_equal(16 * shares.astype(np.float64) % 1, 0)  # of tokens of 4 x 4 pixels
    assert fitted[0].training_tokens(scans).dtype == np.int8
    assert tokens.min() >= 0


def test_training_on_compact_copies_is_the_same_to_the_bit(fitted, healthy):
    tokenizer, detector = fitted[0], small_steps(max_iter=4)[1][1]
    scans = tokenizer.transform(healthy[:12])
    arguments = {
        "codes": tokenizer.codes, "config": detector._transformer_config(scans, n_outputs=1),
        "corruption": {"painted": 0.5, "random": 0.5}, "mask_generator": "brush", "recipe": detector._recipe(),
        "seed": 0, "runtime": Runtime("test", "cpu"),
    }  # fmt: skip
    compact = {"tokens": tokenizer.training_tokens(scans), "painted": tokenizer.painted_tokens(scans, 2)}
    tokens, shares = compact["painted"]
    wide = {
        "tokens": compact["tokens"].astype(np.int64),
        "painted": (tokens.astype(np.int64), shares.astype(np.float32)),
    }
    states = [train_token_detector(**arguments, **one)["state"] for one in (compact, wide)]
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name])


def test_painting_holds_hardly_more_than_what_it_returns(fitted, healthy, monkeypatch):
    images = np.repeat(healthy[:1], 512, axis=0)
    monkeypatch.setattr(
        copies, "encode_images", lambda network, images, *_: np.zeros((len(images), 8, 8), int)
    )
    monkeypatch.setattr(copies, "paint_anomalies", lambda images, rng: (images, images > 0.5))
    monkeypatch.setattr(copies, "_moved", lambda images, heads, streams, flip: (images, heads))
    tracemalloc.start()
    arrays = tokenize_copies(
        images=images, heads=images > 0, config=fitted[0].config_, state=fitted[0].state_, n_copies=64, paint=True,
        flip=True, seed=0, precision="float32", runtime=Runtime("test", "cpu"),
    )  # fmt: skip
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    held = sum(array.nbytes for array in arrays)
    assert held == 512 * 64 * 8 * 8 * 3
    assert peak < 1.3 * held + 1e6
