"""A slice that shows no head scores nothing, whatever made the map; the others are not touched."""

import nibabel as nib
import numpy as np
import pytest
from conftest import IMAGE_SIZE, build, make_slices, plant_lesions, small_steps
from sklearn.pipeline import Pipeline
from toy_scans import RAS, head, image, make

from skmimood.baselines import (
    AnoVAEGAN,
    AsymmetricStudentTeacher,
    AutoregressiveRestorer,
    DenoisingAutoencoder,
    FAnoGAN,
    ForeignPatchInterpolation,
    HealthyZScore,
    IntensityThreshold,
    LatentDiffusion,
    MaskedAutoencoderDetector,
    ReverseDistillation,
    SyntheticAnomalyRestorer,
    TokenizerResidual,
    VAERestoration,
)
from skmimood.maps.base import BasePixelDetector
from skmimood.preprocessing.heads import have_heads, head_masks

SHAPE = (IMAGE_SIZE, IMAGE_SIZE)
NETWORK = {"max_iter": 2, "random_state": 0, "validation_fraction": 0.25}
TRANSFORMER = NETWORK | {"depth": 1, "width": 16, "n_heads": 2}
FEATURES = NETWORK | {"backbone_max_iter": 2}
LAST_STEPS = {
    "inpainter": lambda: Pipeline(small_steps(max_iter=2, validation_fraction=0.25)),
    "autoregressive": lambda: Pipeline(
        [small_steps(max_iter=2)[0], ("last", build(AutoregressiveRestorer, n_restorations=1, **TRANSFORMER))]
    ),
    "diffusion": lambda: Pipeline(
        [small_steps(max_iter=2)[0], ("last", build(LatentDiffusion, channels=4, levels=2, **NETWORK))]
    ),
    "residual": lambda: Pipeline(
        [small_steps(max_iter=2)[0], ("last", TokenizerResidual(validation_fraction=0.25))]
    ),
    "denoising": lambda: Pipeline([("last", build(DenoisingAutoencoder, channels=4, depth=2, **NETWORK))]),
    "foreign": lambda: Pipeline([("last", build(ForeignPatchInterpolation, channels=4, depth=2, **NETWORK))]),
    "synthetic": lambda: Pipeline(
        [("last", build(SyntheticAnomalyRestorer, channels=4, depth=2, **NETWORK))]
    ),
    "variational": lambda: Pipeline(
        [("last", build(VAERestoration, channels=4, depth=1, n_steps=2, **NETWORK))]
    ),
    "vae-gan": lambda: Pipeline([("last", build(AnoVAEGAN, channels=4, depth=1, **NETWORK))]),
    "f-anogan": lambda: Pipeline(
        [("last", build(FAnoGAN, channels=4, depth=1, encoder_max_iter=2, **NETWORK))]
    ),
    "distillation": lambda: Pipeline([("last", build(ReverseDistillation, channels=4, **FEATURES))]),
    "student and teacher": lambda: Pipeline(
        [("last", build(AsymmetricStudentTeacher, channels=4, **FEATURES))]
    ),
    "masked": lambda: Pipeline(
        [("last", build(MaskedAutoencoderDetector, classifier_max_iter=2, n_trials=2, **TRANSFORMER))]
    ),
    "intensity": lambda: Pipeline([("last", IntensityThreshold(bright=False))]),
    "z-score": lambda: Pipeline([("last", HealthyZScore())]),
}


def empty_slices():
    rng = np.random.default_rng(0)
    specks = np.zeros(SHAPE)
    specks[rng.integers(0, IMAGE_SIZE, 9), rng.integers(0, IMAGE_SIZE, 9)] = 1
    block = np.zeros(SHAPE)
    block[5:8, 9:12] = block[20:23, 4:7] = 0.9
    real, imaginary = rng.normal(0, 0.05, (2, *SHAPE))
    slices = {
        "black": np.zeros(SHAPE),
        "even": np.full(SHAPE, 0.6),
        "nearly even": 0.6 + rng.uniform(-0.04, 0.04, SHAPE),
        "faint noise": rng.uniform(0, 0.02, SHAPE),
        "noise of the air": np.hypot(real, imaginary),
        "specks": specks,
        "small blocks": block,
    }
    return {name: np.clip(one, 0, 1).astype(np.float32) for name, one in slices.items()}


EMPTY = empty_slices()


@pytest.fixture(scope="module")
def last_steps():
    healthy = make_slices(16)
    return {name: make().fit(healthy) for name, make in LAST_STEPS.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LAST_STEPS)
def test_a_slice_without_a_head_scores_nothing_and_is_its_own_healed_slice(last_steps, name):
    pipeline, heads = last_steps[name], make_slices(3, seed=5)
    mixed = np.stack([*EMPTY.values(), *heads])
    maps, healed = pipeline.decision_function(mixed), pipeline.transform(mixed)
    assert not maps[: len(EMPTY)].any()
    assert not pipeline.predict(mixed)[: len(EMPTY)].any()
    np.testing.assert_array_equal(healed[: len(EMPTY)], mixed[: len(EMPTY)])
    assert maps[len(EMPTY) :].any(axis=(1, 2)).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LAST_STEPS)
def test_what_every_last_step_heals_is_the_slice_off_the_head_and_wherever_nothing_was_found(
    last_steps, name
):
    *before, last = (step for _, step in last_steps[name].steps)
    slices = plant_lesions(make_slices(4, seed=5))[0] + np.float32(0.01)
    scans = slices
    for step in before:
        scans = step.transform(scans)
    threshold = last.threshold_
    maps, restored = last.map_and_restore(scans)
    try:
        last.threshold_ = low = float(maps.max()) / 3
        of_map, healed = last.detect(scans)
    finally:
        last.threshold_ = threshold
    assert maps.dtype == healed.dtype == restored.dtype == np.float32
    np.testing.assert_array_equal(of_map, maps)
    untouched, surely = (maps <= low) | ~head_masks(slices), maps > 2 * low
    np.testing.assert_array_equal(healed[untouched], slices[untouched].clip(0, 1))
    np.testing.assert_allclose(healed[surely], restored[surely].clip(0, 1), atol=1e-6)
    assert surely.any()


def test_maps_of_slices_with_a_head_are_those_of_the_network(last_steps, monkeypatch):
    heads = make_slices(4, seed=7)
    heads[0] *= np.hypot(*np.mgrid[-1:1:32j, -1:1:32j]) < 0.25  # a small one, as at the top of a brain
    as_they_are = last_steps["denoising"].decision_function(heads)
    monkeypatch.setattr("skmimood.maps.base.have_heads", lambda images: np.ones(len(images), bool))
    np.testing.assert_array_equal(last_steps["denoising"].decision_function(heads), as_they_are)


def test_the_score_of_a_slice_without_a_head_is_0_too(last_steps):
    for name in ("masked", "f-anogan"):
        scores = last_steps[name][-1].score_samples(np.stack([*EMPTY.values(), *make_slices(2)]))
        assert not scores[: len(EMPTY)].any()
        assert scores[len(EMPTY) :].all()


def test_the_maps_of_a_search_are_0_there_too(last_steps):
    *before, inpainter = last_steps["inpainter"]
    scans = Pipeline([(str(k), step) for k, step in enumerate(before)]).transform(
        np.stack([EMPTY["black"], *make_slices(2)])
    )
    maps = inpainter.path(scans, threshold=0.2, n_steps=[1, 2], n_restorations=[2])
    assert not maps[:, :, 0].any()
    assert maps[:, :, 1:].any(axis=(3, 4)).all()


@pytest.mark.parametrize("name", EMPTY)
def test_what_shows_no_head_is_known_at_any_size(name):
    assert not have_heads(EMPTY[name][np.newaxis]).any()
    assert have_heads(make_slices(2, size=64)).all()
    assert not have_heads(np.stack([np.tile(EMPTY[name], (2, 2))])).any()


def test_the_threshold_is_that_of_pixels_in_heads_of_all_held_out_slices():
    rng = np.random.default_rng(0)
    slices = make_slices(80)
    noise = np.abs(rng.normal(0, 0.02, slices.shape)).astype(np.float32)
    noisy = np.clip(slices + noise * (slices == 0), 0, 1)
    detector = IntensityThreshold(equalize="none", fpr=0.05).fit(noisy)
    values = noisy[head_masks(noisy)]
    assert (values > detector.threshold_).mean() == pytest.approx(0.05, abs=0.005)


def test_a_scan_whose_foreground_has_slices_without_a_head_is_flagged_with_their_number():
    steps = Pipeline([("last", HealthyZScore())])
    detector = make(pipeline=steps, size=32, calibration_fraction=0.3).fit([image(seed) for seed in range(6)])
    data, _ = head(9)
    whole = nib.Nifti1Image((data > 0).astype(np.uint8), RAS)
    data[:, :, 3:5] *= 0.01  # dim, but in the brain mask
    scan = nib.Nifti1Image(data, RAS)
    result = detector.detect_scan(scan, brain_mask=whole)
    assert any(flag.startswith("2 slices with foreground show no head") for flag in result.flags)
    filled = result.anomaly.get_fdata().any(axis=(0, 1))
    assert not filled[3:5].any()
    assert filled[5:15].all()
    flags = detector.detect_scan(image(9), brain_mask=whole).flags
    assert not any("show no head" in flag for flag in flags)


def test_every_last_step_is_tried_here():
    known = {
        cls
        for cls in _all_subclasses(BasePixelDetector)
        if not cls.__name__.startswith(("Base", "Untrained"))
    }
    assert {type(make()[-1]) for make in LAST_STEPS.values()} == {
        cls for cls in known if cls.__module__.startswith("skmimood")
    }


def _all_subclasses(cls):
    return {one for sub in cls.__subclasses__() for one in {sub, *_all_subclasses(sub)}}
