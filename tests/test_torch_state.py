"""What a caller has set in torch changes no result, and is as it was afterwards."""

import contextlib

import numpy as np
import pytest
import torch
from conftest import build, make_slices, plant_lesions, small_steps
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from toy_scans import image, make

from skmimood import SliceStandardizer, VQTokenizer
from skmimood.baselines import (
    AnoVAEGAN,
    AsymmetricStudentTeacher,
    AutoregressiveRestorer,
    DenoisingAutoencoder,
    FAnoGAN,
    HealthyZScore,
    MaskedAutoencoderDetector,
    ReverseDistillation,
    TokenCritic,
    TokenLikelihoodDetector,
    VAERestoration,
)
from skmimood.exceptions import InputError
from skmimood.metrics import average_precision

SIZE = 16


@pytest.fixture(scope="module")
def slices():
    return make_slices(8, seed=1, size=SIZE)


def of_tokens(*last, **parameters):
    """Return a pipeline of the small tokenizer and other steps, 2 training steps each."""
    tokenizer, detector, inpainter = small_steps(max_iter=2, batch_size=4, **parameters)
    tokenizer[1].set_params(channels=8, standardize=True)
    return Pipeline([tokenizer, *(last or (detector, inpainter))])


def trained(kind, **parameters):
    common = {"max_iter": 2, "batch_size": 4, "warmup_iter": 0, "precision": "float32", "random_state": 0}
    if "depth" in kind().get_params() and "n_heads" in kind().get_params():
        common |= {"depth": 1, "width": 16, "n_heads": 2}
    return build(kind, **common | parameters)


METHODS = {
    "mimood": of_tokens().set_params(
        detector__corruption={"random": 1, "painted": 1}, detector__n_painted=1, detector__threshold=0.0,
        detector__skip_background=True, inpainter__drop_path=0.2,
        inpainter__maps__residual_weight="changed", inpainter__maps__combination="median",
    ),
    "unet": of_tokens().set_params(
        tokenizer__quantizer="fsq", detector__network="unet", detector__depth=1, detector__width=4,
        detector__threshold=0.0,
    ),
    "likelihood": of_tokens(
        ("detector", trained(TokenLikelihoodDetector, threshold=1.0)), small_steps(max_iter=2)[2]
    ),
    "critic": of_tokens(("detector", trained(TokenCritic, threshold=0.1)), small_steps(max_iter=2)[2]),
    "autoregressive": of_tokens(("restorer", trained(AutoregressiveRestorer, threshold=1.0))),
    "mae": trained(
        MaskedAutoencoderDetector, patch_size=4, decoder_depth=1, decoder_width=16, decoder_n_heads=2,
        classifier_max_iter=2,
    ),
    "denoising": trained(DenoisingAutoencoder, channels=4, depth=2, noise_resolution=4),
    "variational": trained(VAERestoration, channels=4, depth=1, latent_dim=4, n_steps=2),
    "vae-gan": trained(AnoVAEGAN, channels=4, depth=1, latent_dim=4),
    "f-anogan": trained(FAnoGAN, channels=4, depth=1, latent_dim=4, encoder_max_iter=2, n_critic=1),
    "distillation": trained(ReverseDistillation, channels=4, depth=3, backbone_max_iter=2),
    "student and teacher": trained(
        AsymmetricStudentTeacher, channels=4, depth=3, backbone_max_iter=2, flow_width=4, student_width=4
    ),
    "zscore": Pipeline([("standardise", SliceStandardizer()), ("zscore", HealthyZScore())]),
}  # fmt: skip


def maps_of(method, slices):
    return clone(method).fit(slices).decision_function(plant_lesions(slices)[0])


@contextlib.contextmanager
def default(setter, getter, value):
    before = getter()
    setter(value)
    try:
        yield
        assert getter() == value
    finally:
        setter(before)


def dtype(value):
    return default(torch.set_default_dtype, torch.get_default_dtype, value)


@contextlib.contextmanager
def hostile():
    """Set about everything in torch that a caller can set."""
    deterministic = default(
        torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled, True
    )
    autocast = torch.autocast("cpu", torch.bfloat16)
    with dtype(torch.float64), torch.device("meta"), torch.inference_mode(), deterministic, autocast:
        yield
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert torch.empty(0).device.type == "meta"


STATES = {
    "float64": lambda: dtype(torch.float64),
    "float16": lambda: dtype(torch.float16),
    "bfloat16": lambda: dtype(torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "gradients": torch.enable_grad,
    "meta device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("name", METHODS)
def test_no_method_depends_on_what_is_set_in_torch(slices, name):
    expected, drawn = maps_of(METHODS[name], slices), torch.get_rng_state()
    with hostile():
        found = maps_of(METHODS[name], slices)
    np.testing.assert_array_equal(found, expected)
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize("state", STATES)
def test_no_setting_of_torch_changes_a_fit_or_a_map(slices, state):
    expected = maps_of(METHODS["mimood"], slices)
    with STATES[state]():
        found = maps_of(METHODS["mimood"], slices)
    np.testing.assert_array_equal(found, expected)


def test_a_training_in_bfloat16_is_the_same_inside_autocast(slices):
    tokenizer = build(
        VQTokenizer, max_iter=3, warmup_iter=0, channels=8, batch_size=4, precision="bfloat16", random_state=0
    )
    expected = tokenizer.fit(slices).state_
    with torch.autocast("cpu", torch.bfloat16):
        found = clone(tokenizer).fit(slices).state_
    assert tokenizer.precision_ == "bfloat16"
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_what_was_fitted_under_one_setting_is_used_and_fitted_on_under_another(slices):
    with hostile():
        pipeline = clone(METHODS["mimood"]).fit(slices)
        expected = pipeline.decision_function(slices)
    np.testing.assert_array_equal(pipeline.decision_function(slices), expected)
    pipeline[-1].fit(pipeline[:-1].transform(slices))
    np.testing.assert_array_equal(pipeline.decision_function(slices), expected)


TENSORS = {
    "float32": torch.Tensor.float,
    "float64": torch.Tensor.double,
    "with gradients": lambda images: images.clone().requires_grad_(),
    "a result": lambda images: images.clone().requires_grad_() * 1,
    "a parameter": torch.nn.Parameter,
    "strided": lambda images: images.repeat_interleave(2, 2)[:, :, ::2],
    "turned": lambda images: images.transpose(1, 2).contiguous().transpose(1, 2),
    "negated lazily": lambda images: torch.complex(images, -images).conj().imag,
    "a list": list,
    "a list with gradients": lambda images: [image.clone().requires_grad_() for image in images],
    "a list of lists": lambda images: [list(image) for image in images],
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_give_the_maps_of_their_arrays(fitted, kind):
    images = make_slices(2, seed=5)
    tensors = TENSORS[kind](torch.from_numpy(images))
    np.testing.assert_array_equal(fitted.decision_function(tensors), fitted.decision_function(images))


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.uint8, torch.uint16, torch.int64, torch.bool],
)
def test_tensors_of_any_real_type_are_read(fitted, dtype):
    tensor = torch.from_numpy(make_slices(2, seed=5)).to(dtype)
    expected = fitted.decision_function(tensor.float().numpy())
    np.testing.assert_array_equal(fitted.decision_function(tensor), expected)
    np.testing.assert_array_equal(fitted.decision_function(list(tensor)), expected)


def test_tensors_are_learnt_from_with_masks_that_are_tensors():
    images, masks = plant_lesions(make_slices(6, seed=1))
    masks[:4] = False
    arrays = build(VQTokenizer, max_iter=2, warmup_iter=0, channels=8, random_state=0).fit(images, masks)
    tensors = clone(arrays).fit(torch.from_numpy(images).requires_grad_(), torch.from_numpy(masks).bfloat16())
    np.testing.assert_array_equal(tensors.state_["to_image.0.weight"], arrays.state_["to_image.0.weight"])


@pytest.mark.parametrize(
    ("tensor", "fault"),
    [
        (torch.zeros(2, 32, 32, device="meta"), "cannot be made into one array"),
        (torch.zeros(2, 32, 32).to_sparse(), "cannot be made into one array"),
        (torch.zeros(2, 32, 32, dtype=torch.complex64), "must hold real numbers"),
        ([torch.zeros(32, 32), torch.zeros(32, 31)], "cannot be made into one array"),
        (torch.zeros(32, 32).bfloat16(), "For one image pass"),
        (torch.full((2, 32, 32), torch.nan).bfloat16(), "NaN"),
    ],
)
def test_tensors_that_are_no_images_are_refused_in_the_words_of_images(fitted, tensor, fault):
    with pytest.raises(InputError, match=fault):
        fitted.decision_function(tensor)


@pytest.mark.parametrize("scan", [torch.zeros(8, 8, 8).bfloat16(), np.zeros((8, 8, 8)), 7, None])
def test_a_scan_without_a_grid_is_refused_with_the_way_to_give_it_one(scan):
    detector = make().fit([image(seed) for seed in range(4)])
    for method in (detector.detect_scan, detector.decision_function, make().fit):
        with pytest.raises(InputError, match="Wrap an array as nibabel"):
            method(scan)


def test_metrics_of_tensors_are_those_of_arrays(fitted):
    slices, masks = plant_lesions(make_slices(2, seed=5))
    maps = fitted.decision_function(slices)
    tensors = torch.from_numpy(masks).bfloat16(), torch.from_numpy(maps).requires_grad_()
    assert average_precision(*tensors) == average_precision(masks, maps)
    assert fitted.score(torch.from_numpy(slices), tensors[0]) == fitted.score(slices, masks)
