import numpy as np
import pytest
import torch

from skmimood.runtime.streams import Streams, sampling_uniforms
from skmimood.tokens.sampling import restore_tokens, sample

ODD = 9  # the one anomalous code of the toy detector


def score(tokens):
    return (tokens == ODD).float()


def logits_of(code, n_codes=10):
    def logits(tokens, masks):
        return torch.nn.functional.one_hot(torch.full_like(tokens[masks], code), n_codes) * 50.0

    return logits


def restore(tokens, n_restorations=2, n_steps=3, logits=None, threshold=0.5):
    uniforms = torch.from_numpy(sampling_uniforms(0, n_restorations, n_steps, tuple(tokens.shape[1:])))
    *_, restored = restore_tokens(
        tokens, score(tokens), uniforms, threshold=threshold, score=score, logits=logits or logits_of(3)
    )
    return restored


def test_anomalous_tokens_are_replaced_and_others_kept():
    tokens = torch.tensor([[[1, ODD], [ODD, 2]]])
    assert restore(tokens)[0, 0].tolist() == [[1, 3], [3, 2]]


def test_a_threshold_of_1_changes_nothing():
    tokens = torch.full((2, 4, 4), ODD)
    assert torch.equal(restore(tokens, threshold=1.0), tokens[:, None].expand(2, 2, 4, 4))


def test_tokens_are_resampled_until_they_pass():
    calls = []

    def logits(tokens, masks):
        calls.append(int(masks.sum()))
        return logits_of(ODD if len(calls) < 3 else 1)(tokens, masks)

    restored = restore(torch.full((1, 2, 2), ODD), n_restorations=1, n_steps=5, logits=logits)
    assert (restored == 1).all()
    assert calls == [4, 4, 4]


def broad_law(tokens, masks):
    return torch.zeros(int(masks.sum()), ODD)  # every code but the anomalous one


def everything_is_anomalous(tokens):
    return torch.ones(tokens.shape)


def count_scored(score, logits, n_restorations, n_steps):
    """Restore two equal slices of which everything is masked; return how many grids were scored in each call."""
    scored = []

    def counting(tokens):
        scored.append(len(tokens))
        return score(tokens)

    tokens = torch.full((2, 3, 3), ODD)
    uniforms = torch.from_numpy(sampling_uniforms(0, n_restorations, n_steps, (3, 3)))
    [*_] = restore_tokens(tokens, score(tokens), uniforms, threshold=0.5, score=counting, logits=logits)
    return scored


def test_the_first_score_is_the_one_that_is_passed_in():
    assert count_scored(everything_is_anomalous, broad_law, n_restorations=3, n_steps=1) == []


def test_equal_restorations_are_scored_once():
    assert count_scored(everything_is_anomalous, broad_law, n_restorations=3, n_steps=3) == [3, 3]


def test_what_was_resampled_to_itself_is_not_scored_again():
    assert count_scored(score, logits_of(ODD), n_restorations=3, n_steps=4) == []


def test_every_step_is_what_fewer_steps_return():
    tokens = torch.full((2, 4, 4), ODD)
    uniforms = torch.from_numpy(sampling_uniforms(0, 3, 4, (4, 4)))
    arguments = {"threshold": 0.5, "score": everything_is_anomalous, "logits": broad_law}
    steps = list(restore_tokens(tokens, score(tokens), uniforms, **arguments))
    for n_steps, restored in enumerate(steps, start=1):
        *_, last = restore_tokens(tokens, score(tokens), uniforms[:, :n_steps], **arguments)
        assert torch.equal(restored, last)
    assert not torch.equal(steps[0], steps[1])


def test_restorations_differ_where_the_law_is_broad():
    restored = restore(torch.full((1, 4, 4), ODD), n_restorations=2, logits=broad_law)
    assert (restored[0, 0] != restored[0, 1]).any()


def test_samples_follow_the_law():
    probabilities = torch.tensor([0.1, 0.2, 0.7])
    uniforms = torch.rand(1, 100, 100, generator=torch.Generator().manual_seed(0))
    drawn = sample(probabilities.log().expand(1, 100, 100, 3), uniforms, temperature=1.0)
    np.testing.assert_allclose(np.bincount(drawn.flatten()) / 10_000, probabilities, atol=0.02)


def test_a_low_temperature_takes_the_likeliest_token():
    logits = torch.tensor([1.0, 1.5, 0.5]).expand(1, 8, 8, 3)
    uniforms = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (sample(logits, uniforms, temperature=0.01) == 1).all()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_extreme_draws_stay_in_the_codebook(uniform):
    logits = torch.randn(1, 4, 4, 300, generator=torch.Generator().manual_seed(0))
    drawn = sample(logits, torch.full((1, 4, 4), uniform), 1.0)
    assert drawn.min() >= 0
    assert drawn.max() < 300


def test_uniforms_of_fewer_restorations_and_steps_are_a_prefix():
    many, few = sampling_uniforms(5, 4, 8, (3, 2)), sampling_uniforms(5, 2, 3, (3, 2))
    np.testing.assert_array_equal(many[:2, :3], few)


def test_streams_depend_on_seed_and_step_alone():
    first, again, other = Streams.at(1, 7), Streams.at(1, 7), Streams.at(1, 8)
    draw = first.numpy.random()
    assert draw == again.numpy.random()
    assert draw != other.numpy.random()
    assert torch.rand(1, generator=first.torch) == torch.rand(1, generator=again.torch)
