import numpy as np
import pytest
from conftest import build, make_slices, plant_lesions, small_steps
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from skmimood import PixelEvidence, load_model, save_model
from skmimood.exceptions import InputError


def with_evidence(**parameters):
    tokenizer, detector, inpainter = small_steps(max_iter=30, validation_fraction=0.25)
    parameters = {
        "channels": 8,
        "depth": 3,
        "noise_resolution": 8,
        "erosion": 1,
        "median_filter": 3,
    } | parameters
    evidence = build(
        PixelEvidence,
        max_iter=100,
        learning_rate=3e-3,
        warmup_iter=10,
        random_state=0,
        precision="float32",
        **parameters,
    )
    pipeline = Pipeline([tokenizer, ("evidence", evidence), detector, inpainter])
    return pipeline.set_params(
        inpainter__maps__fusion="geometric", inpainter__maps__residual_weight="anomaly"
    )


@pytest.fixture(scope="module")
def fitted_pipeline(healthy):
    return with_evidence().fit(healthy)


@pytest.fixture(scope="module")
def lesions():
    return plant_lesions(make_slices(12, seed=3))


def test_evidence_is_higher_in_a_lesion_and_travels_with_its_slice(fitted_pipeline, lesions):
    slices, masks = lesions
    scans = fitted_pipeline[:2].transform(slices)
    assert scans.evidence.dtype == scans.denoised.dtype == np.float32
    assert scans.evidence[masks].mean() > 5 * scans.evidence[~masks].mean()
    chosen = scans[[3, 1]]
    np.testing.assert_array_equal(chosen.evidence, scans.evidence[[3, 1]])
    np.testing.assert_array_equal(chosen.denoised, scans.denoised[[3, 1]])


def test_the_fused_map_is_the_geometric_mean_of_both(fitted_pipeline, lesions):
    scans = fitted_pipeline[:-1].transform(lesions[0])
    last = fitted_pipeline[-1]
    fused = last.decision_function(scans)
    try:
        alone = last.set_params(maps__fusion="none").decision_function(scans)
    finally:
        last.set_params(maps__fusion="geometric")
    np.testing.assert_allclose(fused, np.sqrt(alone * scans.evidence), rtol=1e-4, atol=1e-6)


def test_without_the_step_nothing_is_fused(fitted, lesions):
    scans = fitted[:-1].transform(lesions[0])
    plain = fitted[-1].decision_function(scans)
    try:
        fused = fitted[-1].set_params(maps__fusion="geometric").decision_function(scans)
    finally:
        fitted[-1].set_params(maps__fusion="none")
    np.testing.assert_array_equal(plain, fused)


def test_a_healed_slice_is_the_slice_where_the_map_is_below_the_threshold(fitted_pipeline, lesions):
    slices, masks = lesions
    scans = fitted_pipeline[:-1].transform(slices)
    maps, healed = fitted_pipeline[-1].detect(scans)
    nothing = maps <= fitted_pipeline[-1].threshold_
    np.testing.assert_array_equal(healed[nothing], slices[nothing])
    assert nothing[~masks].mean() > 0.8
    assert not nothing[masks].all()


def test_a_saved_model_gives_the_same_maps(fitted_pipeline, lesions, tmp_path):
    save_model(fitted_pipeline, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    for one, other in zip(
        (loaded.decision_function(lesions[0]), loaded.transform(lesions[0])),
        (fitted_pipeline.decision_function(lesions[0]), fitted_pipeline.transform(lesions[0])),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert clone(loaded).get_params()["evidence__erosion"] == 1


def test_slices_that_are_no_tokens_or_of_another_size_are_refused(fitted_pipeline, lesions):
    with pytest.raises(InputError, match="TokenizedScans"):
        fitted_pipeline[1].transform(lesions[0])
    with pytest.raises(InputError):
        fitted_pipeline[:2].transform(make_slices(2, size=64))
