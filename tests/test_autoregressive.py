import itertools
import pickle

import numpy as np
import pytest
import torch
from conftest import build, make_slices, plant_lesions, small_steps
from rounding import assert_same
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline

from skmimood import load_model, save_model
from skmimood.exceptions import InputError, SkmimoodWarning
from skmimood.metrics import token_labels
from skmimood.networks.causal_transformer import CausalTransformer
from skmimood.networks.weights import new_network
from skmimood.runtime.streams import Streams
from skmimood.tokens.autoregressive import (
    AutoregressiveRestorer,
    restore_in_order,
    surprisals,
    visiting_order,
)
from skmimood.tokens.container import TokenizedScans

TINY = {
    "depth": 2, "width": 32, "n_heads": 2, "batch_size": 16, "warmup_iter": 10, "learning_rate": 3e-3,
    "validation_fraction": 0.25, "precision": "float32", "random_state": 0,
}  # fmt: skip


class BrightnessTokenizer:
    """Squares of 4 pixels a side become their mean brightness, in 16 steps: a tokenizer that needs no training."""

    n_codes_, downsampling = 16, 4

    def transform(self, images):
        n, height, width = images.shape
        squares = images.reshape(n, height // 4, 4, width // 4, 4).mean((2, 4))
        return TokenizedScans(images, np.rint(squares * 15).astype(np.int64), self)

    def scans_of(self, tokens):
        """Return scans with these tokens."""
        return TokenizedScans(self.decode_tensor(torch.from_numpy(tokens)).numpy(), tokens, self)

    def training_tokens(self, X):
        return X.tokens[:, None]

    def seen(self, images):
        return images

    def unseen(self, seen, images):
        return seen

    def decode_tensor(self, tokens):
        return (tokens.float() / 15).repeat_interleave(4, 1).repeat_interleave(4, 2)


TOKENIZER = BrightnessTokenizer()
LAYOUT = np.random.default_rng(0).integers(0, 16, (3, 4))  # each place has its token: the one healthy slice
LAYOUTS = TOKENIZER.scans_of(np.repeat(LAYOUT[None], 32, axis=0))


@pytest.fixture(scope="module")
def fitted_restorer():
    """Return a restorer of two orderings trained enough to tell a lesion."""
    restorer = build(
        AutoregressiveRestorer, **TINY, threshold=3.0, n_restorations=2, n_orderings=2, max_iter=100
    )
    return restorer.fit(TOKENIZER.transform(make_slices(64)))


def copy_of(restorer):
    return pickle.loads(pickle.dumps(restorer))


@pytest.fixture
def restorer(fitted_restorer):
    """Return a copy of the fitted restorer, free to change."""
    return copy_of(fitted_restorer)


@pytest.fixture(scope="module")
def lesions():
    return plant_lesions(make_slices(8, seed=3))


@pytest.fixture(scope="module")
def scans(lesions):
    return TOKENIZER.transform(lesions[0])


def network_of(grid, n_codes=32, depth=2):
    config = {
        "n_inputs": n_codes + 1, "n_outputs": n_codes, "grid": grid, "depth": depth, "width": 32, "n_heads": 2,
        "mlp_ratio": 2.0, "drop_path": 0.1,
    }  # fmt: skip
    network = new_network(CausalTransformer, config, Streams.at(0, 0).torch).requires_grad_(False)
    for weights in network.parameters():
        weights.mul_(5)  # far from uniform laws
    return network


def test_a_planted_lesion_scores_higher_than_its_surroundings(restorer, scans, lesions):
    maps, masks = restorer.decision_function(scans), lesions[1]
    assert roc_auc_score(masks.ravel(), maps.ravel()) > 0.9
    assert restorer.score(scans, masks) > 5 * masks.mean()


def test_tokens_of_a_planted_lesion_score_higher_than_those_of_the_healthy_slice(restorer, scans, lesions):
    inside = token_labels(lesions[1], 4, rule="half")
    with_lesion, without = (
        restorer.token_scores(X) for X in (scans, TOKENIZER.transform(make_slices(8, seed=3)))
    )
    assert with_lesion.shape == (8, 8, 8)
    assert with_lesion.dtype == np.float32
    assert with_lesion[inside].mean() > 3 * without[inside].mean()


def test_healing_brings_a_lesion_back_towards_healthy_tissue(restorer, scans, lesions):
    slices, masks = lesions
    healthy = make_slices(8, seed=3)
    healed = restorer.transform(scans)
    assert np.abs(healed - healthy)[masks].mean() < 0.5 * np.abs(slices - healthy)[masks].mean()


def test_predict_finds_the_lesion_and_spares_healthy_slices(restorer, scans, lesions):
    masks, truth = restorer.predict(scans), lesions[1]
    assert masks[truth].mean() > 5 * masks[~truth].mean()
    assert restorer.predict(TOKENIZER.transform(make_slices(40, seed=4))).mean() < 0.04


@pytest.mark.numerics
@pytest.mark.parametrize("threshold", [0.1, 1.0, 3.0])
def test_the_cache_changes_no_token(restorer, scans, threshold):
    cached = restorer.set_params(threshold=threshold).restore(scans)
    assert (cached != scans.tokens[:, None]).any()
    assert_same(restorer.set_params(key_value_cache=False).restore(scans), cached)


@pytest.mark.numerics
def test_fewer_restorations_are_a_prefix_of_more(restorer, scans):
    two, four = (restorer.set_params(n_restorations=n).restore(scans) for n in (2, 4))
    assert four.shape == (8, 8, 8, 8)  # of four restorations in two orderings
    assert_same(two, four[:, :4])
    assert (four[:, 0] != four[:, 2]).any()


@pytest.mark.numerics
@pytest.mark.parametrize("batch_size", [1, 5])
def test_no_result_depends_on_the_batch_size_or_on_the_neighbours(restorer, scans, batch_size):
    expected = [restorer.restore(scans), restorer.decision_function(scans), restorer.token_scores(scans)]
    restorer.set_params(training__batch_size=batch_size)
    backwards = scans[np.arange(len(scans))[::-1]]
    methods = (restorer.restore, restorer.decision_function, restorer.token_scores)
    for method, result in zip(methods, expected, strict=True):
        assert_same(method(backwards)[::-1], result)


def test_nothing_changes_when_no_token_exceeds_the_threshold(restorer, scans):
    restorer.set_params(threshold=np.inf)
    np.testing.assert_array_equal(restorer.restore(scans), np.repeat(scans.tokens[:, None], 4, axis=1))
    maps, healed = restorer.detect(scans)
    nothing = maps <= restorer.threshold_
    np.testing.assert_array_equal(healed[nothing], scans.images[nothing])


def test_the_masked_residual_vanishes_away_from_changed_tokens(restorer, scans):
    restorer.set_params(maps__min_filter=1, maps__mean_filter=1)
    changed = (restorer.restore(scans) != scans.tokens[:, None]).any(1)
    # The weight is interpolated, so it reaches into neighbouring tokens.
    near = np.lib.stride_tricks.sliding_window_view(np.pad(changed, ((0,), (1,), (1,))), (3, 3), (1, 2)).any(
        (3, 4)
    )
    away = ~near.repeat(4, 1).repeat(4, 2)
    assert restorer.decision_function(scans)[away].max() > 0
    maps = restorer.set_params(maps__residual_weight="changed").decision_function(scans)
    assert maps[away].max() == 0
    assert maps[~away].max() > 0


def test_the_likelihoods_of_all_sequences_sum_to_1():
    network = network_of([2, 2], n_codes=3)
    sequences = torch.tensor(list(itertools.product(range(3), repeat=4)))
    likelihood = torch.exp(-surprisals(network(sequences), sequences).sum(1))
    assert likelihood.sum().item() == pytest.approx(1, abs=1e-5)
    assert likelihood.max() > 3 / 81


def test_a_token_changes_no_law_up_to_its_own_and_some_after_it():
    network = network_of([4, 5])
    tokens = torch.randint(0, 32, (3, 20), generator=torch.Generator().manual_seed(0))
    logits = network(tokens)
    for position in (0, 7, 18):
        other = tokens.clone()
        other[:, position] = (other[:, position] + 1) % 32
        changed = (network(other) != logits).any(-1)
        assert not changed[:, : position + 1].any()
        assert changed[:, position + 1].all()


def test_logits_from_the_cache_are_those_of_a_pass_over_the_sequence():
    network = network_of([4, 5])
    given, replaced = torch.randint(0, 32, (2, 3, 20), generator=torch.Generator().manual_seed(0))
    cache = network.new_cache(3)
    torch.testing.assert_close(network(given, cache=cache), network(given))
    mixed = torch.cat([given[:, :8], replaced[:, 8:]], 1)  # the cache still holds what was given
    for position in range(9, 20):
        expected = network(mixed)[:, position]
        torch.testing.assert_close(network.logits_at(mixed, position, cache), expected, atol=1e-4, rtol=1e-4)


class RepeatingNetwork:
    """Each token is nearly always the one before it; the first may be any."""

    def logits_at(self, tokens, position, cache):
        laws = torch.zeros(len(tokens), 10)
        return laws if position == 0 else laws.scatter(1, tokens[:, position - 1 : position], 20.0)


def test_a_token_is_judged_by_the_restored_ones_before_it():
    tokens = torch.tensor([[1, 1, 9, 1, 1], [2, 2, 2, 5, 5]])
    restored = restore_in_order(
        RepeatingNetwork(), tokens, torch.full((1, 5), 0.5), threshold=6.0, temperature=1.0, key_value_cache=False
    )  # fmt: skip
    # Given the 9, the 1 that follows would be replaced too.
    assert restored[:, 0].tolist() == [[1, 1, 1, 1, 1], [2, 2, 2, 2, 2]]


def test_the_temperature_is_that_of_sampling_and_not_of_the_likelihood(restorer, scans):
    cold, hot = (restorer.set_params(temperature=value).restore(scans) for value in (1e-6, 5.0))
    np.testing.assert_array_equal(cold[:, 0], cold[:, 2])  # the likeliest token, whatever the draw
    assert (hot[:, 0] != hot[:, 2]).any()
    restored = restore_in_order(
        RepeatingNetwork(), torch.tensor([[1, 1, 9]]), torch.full((1, 3), 0.55), threshold=6.0, temperature=1e6,
        key_value_cache=False,
    )  # fmt: skip
    assert restored[0, 0].tolist() == [
        1,
        1,
        5,
    ]  # the 9 is as unlikely as ever, its replacement from a uniform law


def test_orderings_are_the_eight_raster_scans_of_the_turned_and_transposed_grid():
    orders = [visiting_order((3, 4), ordering) for ordering in range(8)]
    assert orders[0].tolist() == list(range(12))
    assert orders[1].tolist() == list(range(11, -1, -1))
    assert orders[4].tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert len({tuple(order) for order in orders}) == 8
    for order in orders:
        assert sorted(order) == list(range(12))


def test_every_ordering_puts_the_tokens_back_in_their_places():
    restorer = build(
        AutoregressiveRestorer,
        **TINY | {"depth": 1, "width": 16, "learning_rate": 2e-2},
        threshold=2.0,
        n_restorations=2,
        temperature=0.1,
        n_orderings=8,
        max_iter=40,
    ).fit(LAYOUTS)
    rng = np.random.default_rng(1)
    tokens = np.where(rng.random((10, 3, 4)) < 0.2, rng.integers(0, 16, (10, 3, 4)), LAYOUT)
    scans = TOKENIZER.scans_of(tokens)
    restored = restorer.restore(scans)
    assert restored.shape == (10, 16, 3, 4)
    np.testing.assert_array_equal(restored, np.broadcast_to(LAYOUT, (16, *LAYOUT.shape))[None].repeat(10, 0))
    scores = restorer.token_scores(scans)
    assert scores[tokens != LAYOUT].min() > scores[tokens == LAYOUT].max()


def test_token_scores_are_the_mean_over_the_orderings(restorer, scans):
    expected = 0
    for ordering, network in enumerate(restorer._network()):
        tokens = torch.tensor(np.rot90(scans.tokens, 2 * ordering, (1, 2)).reshape(8, 64).copy())
        scores = surprisals(network(tokens), tokens).view(8, 8, 8).numpy()
        expected += np.rot90(scores, -2 * ordering, (1, 2)) / 2
    np.testing.assert_allclose(restorer.token_scores(scans), expected, rtol=1e-5)


def count_trainings(memory):
    return sum("train_autoregressive" in str(path) for path in memory.rglob("output.pkl"))


def test_a_grid_search_over_inference_parameters_trains_once(tmp_path):
    healthy, (lesions, masks) = make_slices(20), plant_lesions(make_slices(6, seed=1))
    y = np.concatenate([np.zeros_like(healthy, bool), masks])
    common = {"max_iter": 3, "memory": str(tmp_path)}
    pipeline = Pipeline(
        [
            small_steps(**common)[0],
            ("restorer", build(AutoregressiveRestorer, **TINY, **common, n_restorations=1)),
        ]
    )
    grid = {"restorer__threshold": [3.0, 3.5], "restorer__n_restorations": [1, 2]}
    folds = PredefinedSplit(np.r_[np.full(20, -1), np.zeros(6, int)])
    search = GridSearchCV(pipeline, grid, cv=folds).fit(np.concatenate([healthy, lesions]), y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert count_trainings(tmp_path) == 1


def test_each_ordering_is_cached_on_its_own(tmp_path):
    restorer = build(AutoregressiveRestorer, **TINY, max_iter=2, memory=str(tmp_path))
    one = clone(restorer).fit(LAYOUTS)
    assert count_trainings(tmp_path) == 1
    three = clone(restorer).set_params(n_orderings=3).fit(LAYOUTS)
    assert count_trainings(tmp_path) == 3
    assert (one.n_iter_, three.n_iter_) == (2, 6)
    assert one.seed_ == three.seed_ == 0
    for name, array in one.state_.items():
        np.testing.assert_array_equal(array, three.state_[name])


def test_a_saved_pipeline_gives_the_same_maps(healthy, lesions, tmp_path):
    steps = [
        small_steps(max_iter=3)[0],
        ("restorer", build(AutoregressiveRestorer, **TINY, max_iter=3, n_orderings=2)),
    ]
    pipeline = Pipeline(steps).fit(healthy)
    save_model(pipeline, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded[-1].get_params() == pipeline[-1].get_params()
    for method in ("decision_function", "predict"):
        first, second = (getattr(one, method)(lesions[0]) for one in (pipeline, loaded))
        np.testing.assert_array_equal(first, second)


def test_it_behaves_as_a_scikit_learn_estimator(restorer, scans):
    copy = clone(restorer)
    assert copy.get_params() == restorer.get_params()
    assert not [name for name in vars(copy) if name.endswith("_")]
    with pytest.raises(NotFittedError):
        copy.token_scores(scans)
    learnt = set(vars(restorer)) - set(copy.get_params())
    assert all(name.endswith("_") and not name.startswith("_") for name in learnt)


def test_predict_warns_when_the_threshold_belongs_to_other_parameters_and_not_of_the_cache(restorer, scans):
    restorer.set_params(key_value_cache=False).predict(scans[:2])
    for name, value in {"threshold": 3.5, "n_restorations": 1, "temperature": 0.5}.items():
        with pytest.warns(SkmimoodWarning, match="calibrated with other"):
            copy_of(restorer).set_params(**{name: value}).predict(scans[:2])


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("threshold", -1.0), ("threshold", np.nan), ("threshold", "6"), ("n_restorations", 0), ("temperature", 0.0),
        ("n_orderings", 0), ("n_orderings", 9), ("n_orderings", 2.0), ("combination", "best"), ("width", 0),
    ],
)  # fmt: skip
def test_a_parameter_out_of_range_is_refused_by_name(scans, parameter, value):
    with pytest.raises(InputError, match=rf"AutoregressiveRestorer: (maps: )?{parameter} must be"):
        build(AutoregressiveRestorer, **{parameter: value}).fit(scans)


def test_weighting_by_a_detector_without_one_is_refused_before_the_training(scans):
    with pytest.raises(InputError, match="has not passed a token detector"):
        build(AutoregressiveRestorer, residual_weight="anomaly", max_iter=10**9).fit(scans)


def test_plain_images_and_tokens_of_another_grid_are_refused(restorer, healthy, scans):
    with pytest.raises(InputError, match="output of VQTokenizer"):
        AutoregressiveRestorer().fit(healthy)
    other = TokenizedScans(scans.images, scans.tokens[:, :4], scans.tokenizer)
    for method in (restorer.token_scores, restorer.restore):
        with pytest.raises(InputError, match="8 x 8 tokens a slice as in fit"):
            method(other)
