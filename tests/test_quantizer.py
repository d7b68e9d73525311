import math

import pytest
import torch

from skmimood.networks.quantizer import CosineQuantizer, EMAQuantizer, FiniteScalarQuantizer, levels_for

LEVELS = (8, 6, 5)


def encoder_outputs(seed, code_dim=4, n=8):
    return torch.randn(n, code_dim, 6, 6, generator=torch.Generator().manual_seed(seed))


def learnt(quantizer):
    """Return the quantizer after a few steps on clusters that move, so that codes die and restart."""
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        quantizer(3 * encoder_outputs(step) + step / 4, generator)
    return quantizer


@pytest.fixture
def cosine():
    return learnt(CosineQuantizer(16, 4, decay=0.5, restart_below=1.0))


@pytest.fixture
def fsq():
    quantizer = FiniteScalarQuantizer(LEVELS)
    quantizer.initialise()
    return quantizer


def test_cosine_codes_stay_on_the_unit_sphere_and_the_decoder_gets_them(cosine):
    torch.testing.assert_close(cosine.codes.norm(dim=1), torch.ones(16))
    torch.testing.assert_close(cosine(encoder_outputs(99)).vectors.norm(dim=1), torch.ones(8, 6, 6))


def test_cosine_tokens_are_those_of_the_largest_cosine_at_any_scale(cosine):
    encoded = encoder_outputs(99)
    similarities = torch.einsum("ndhw,kd->nhwk", encoded, cosine.codes)
    for scale in (0.1, 1.0, 50.0):
        assert torch.equal(cosine(scale * encoded).tokens, similarities.argmax(-1))


def test_tokens_of_a_codebook_of_averages_depend_on_the_scale():
    ema, encoded = learnt(EMAQuantizer(16, 4, decay=0.5, restart_below=1.0)), encoder_outputs(99)
    assert not torch.equal(ema(encoded).tokens, ema(50 * encoded).tokens)


def test_each_finite_scalar_is_rounded_to_its_levels(fsq):
    encoded = encoder_outputs(0, code_dim=3)
    steps = torch.tensor(LEVELS).view(3, 1, 1) - 1
    digits = ((encoded.tanh() + 1) / 2 * steps).round()
    quantized = fsq(encoded)
    torch.testing.assert_close(quantized.vectors, 2 * digits / steps - 1)
    eights, sixes, fives = digits.long().unbind(1)
    assert torch.equal(quantized.tokens, (eights * 6 + sixes) * 5 + fives)


def test_tokens_of_finite_scalars_survive_a_round_trip_through_their_vectors(fsq):
    tokens = torch.arange(math.prod(LEVELS)).view(-1, 10, 8)
    vectors = fsq.look_up(tokens)
    assert torch.equal(fsq(torch.atanh(0.999 * vectors)).tokens, tokens)


def test_an_encoder_can_reach_every_combination_of_levels(fsq):
    tokens = fsq(2 * encoder_outputs(0, code_dim=3, n=400)).tokens
    assert len(tokens.unique()) == math.prod(LEVELS)


def test_rounding_lets_the_gradient_straight_through(fsq):
    encoded = encoder_outputs(0, code_dim=3).requires_grad_()
    weights = encoder_outputs(1, code_dim=3)
    quantized = fsq(encoded)
    (weights * quantized.vectors).sum().backward()
    torch.testing.assert_close(encoded.grad, weights * (1 - encoded.detach().tanh() ** 2))
    assert quantized.commitment == 0


@pytest.mark.parametrize(
    ("n_codes", "levels"), [(1, (4, 4)), (256, (8, 6, 5)), (512, (8, 8, 8)), (1000, (8, 5, 5, 5))]
)
def test_levels_make_about_as_many_codes_as_asked_for(n_codes, levels):
    assert levels_for(n_codes) == levels
