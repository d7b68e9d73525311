import warnings

import pytest
from conftest import make_slices, small_steps
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from skmimood import MaskedTokenInpainter, ResidualMaps, Training, VQTokenizer, load_model, save_model
from skmimood.validation.old_names import MOVED, new_settings


def moved(name, group="training"):
    return pytest.warns(FutureWarning, match=f"{name} of .* has moved: use {group}__{name} .*set_params")


def test_a_constructor_takes_old_names():
    training = Training(batch_size=8)
    with moved("max_iter"):
        tokenizer = VQTokenizer(max_iter=3, training=training)
    assert (tokenizer.training.max_iter, tokenizer.training.batch_size, training.max_iter) == (3, 8, 600)
    with moved("erosion", "maps"):
        assert MaskedTokenInpainter(erosion=2).maps == ResidualMaps(weight_power=0.5, erosion=2)


def test_set_params_takes_old_names_in_a_pipeline_too():
    pipeline = Pipeline(small_steps())
    with moved("max_iter"):
        pipeline.set_params(tokenizer__max_iter=3)
    assert pipeline.get_params()["tokenizer__training__max_iter"] == 3


def test_attributes_are_read_and_set_by_old_names():
    inpainter = MaskedTokenInpainter()
    with moved("weight_power", "maps"):
        assert inpainter.weight_power == 0.5
    assert inpainter.maps is None
    with moved("batch_size"):
        inpainter.batch_size = 7
    assert inpainter.get_params()["training__batch_size"] == 7


def test_an_unknown_name_is_refused_as_ever():
    with pytest.raises(TypeError, match=r"VQTokenizer.*unexpected keyword argument 'erosion'"):
        VQTokenizer(erosion=2)
    with pytest.raises(ValueError, match="Invalid parameter 'erosion'"):
        VQTokenizer().set_params(erosion=2)


def test_each_old_name_is_a_parameter_of_now():
    nested = MaskedTokenInpainter().get_params()
    assert all(f"{group}__{name}" in nested for name, group in MOVED.items())


def test_settings_of_an_earlier_model_are_known_by_their_new_names():
    known = {"last__maps__erosion", "tokenizer__training__max_iter", "mae__residual"}
    old = {"last__erosion": 1, "tokenizer__max_iter": 2, "mae__residual": "positive", "gone__x": 3}
    new = {
        "last__maps__erosion": 1,
        "tokenizer__training__max_iter": 2,
        "mae__residual": "positive",
        "gone__x": 3,
    }
    assert new_settings(old, known) == new


def test_nothing_is_said_of_a_model_that_is_saved_and_opened(fitted, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_model(fitted, tmp_path / "model")
        loaded = load_model(tmp_path / "model")
    of_maps = [name for name in fitted.get_params() if name.startswith("inpainter__maps__")]
    assert [loaded.get_params()[name] for name in of_maps] == [fitted.get_params()[name] for name in of_maps]


def test_a_warning_points_at_the_line_that_used_an_old_name():
    with pytest.warns(FutureWarning) as caught:
        VQTokenizer(max_iter=3)
    assert caught[0].filename == __file__


class OfBefore(VQTokenizer):
    """A subclass with a constructor in which old names are parameters."""

    def __init__(self, *, n_codes=16, max_iter=5):
        super().__init__(n_codes=n_codes, max_iter=max_iter)


class FixedLength(VQTokenizer):
    """A subclass that passes an old name on."""

    def __init__(self, *, n_codes=16):
        super().__init__(n_codes=n_codes, max_iter=4)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("subclass", "n_steps"), [(OfBefore, 5), (FixedLength, 4)])
def test_a_subclass_with_a_constructor_of_its_own_is_cloned_and_fitted(subclass, n_steps):
    fitted = clone(subclass(n_codes=8)).fit(make_slices(12))
    assert (fitted.n_iter_, fitted.n_codes_) == (n_steps, 8)
