import hashlib
import json
import os
import pickle
import resource
import shutil
from contextlib import nullcontext

import joblib
import numpy as np
import pytest
import torch
from conftest import small_steps
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from torch import nn

from skmimood import load_model, persistence, save_model
from skmimood.baselines import DenoisingAutoencoder
from skmimood.exceptions import InputError, ModelLoadError, ModelSaveError, SkmimoodWarning
from skmimood.persistence import _content_hash


@pytest.fixture
def model(fitted, tmp_path):
    save_model(fitted, tmp_path / "model")
    return tmp_path / "model"


def rewrite_manifest(model, change) -> None:
    """Change the manifest and give it a valid checksum again, as an attacker would."""
    content = json.loads((model / "manifest.json").read_text())
    content.pop("sha256")
    change(content)
    (model / "manifest.json").write_text(json.dumps({"sha256": _content_hash(content), **content}))


def step(content, index) -> dict:
    return content["estimator"]["steps"][index][1]


def test_a_loaded_model_gives_the_same_maps_masks_and_parameters(fitted, healthy, model):
    loaded = load_model(model)
    np.testing.assert_array_equal(loaded.decision_function(healthy), fitted.decision_function(healthy))
    np.testing.assert_array_equal(loaded.predict(healthy), fitted.predict(healthy))
    assert loaded[1].get_params() == fitted[1].get_params()
    np.testing.assert_array_equal(loaded[2].history_["loss"], fitted[2].history_["loss"])


def test_a_model_is_a_manifest_and_arrays_and_nothing_else(model):
    assert sorted(path.name for path in model.iterdir()) == ["arrays.safetensors", "manifest.json"]


def test_a_model_tells_nothing_of_the_machine_that_made_it(healthy, tmp_path):
    pipeline = Pipeline(small_steps(max_iter=1, memory=str(tmp_path / "cache"))).fit(healthy)
    save_model(pipeline, tmp_path / "model")
    assert str(tmp_path) not in (tmp_path / "model" / "manifest.json").read_text()


def test_bad_input_48_a_model_made_on_another_device_opens_here(fitted, healthy, model):
    rewrite_manifest(model, lambda content: step(content, 0)["params"].update(device="cuda:7"))
    loaded = load_model(model)
    assert loaded[0].device == "auto"
    np.testing.assert_array_equal(
        loaded.decision_function(healthy[:1]), fitted.decision_function(healthy[:1])
    )


@pytest.mark.parametrize("n_passes", [1, 4])
def test_a_model_with_parameters_that_are_no_more_opens_and_warns_where_its_maps_were_others(
    fitted, healthy, model, n_passes
):
    def add(content):
        for values in (step(content, 2)["params"], step(content, 2)["fitted"]["calibrated_with_"]):
            values.update(n_passes=n_passes, order="confidence")
        step(content, 1)["params"].update(corruption="foreign", mask_generator="boxes")

    rewrite_manifest(model, add)
    differs = n_passes > 1
    with (
        pytest.warns(SkmimoodWarning, match="with n_passes=4, a removed parameter")
        if differs
        else nullcontext()
    ):
        loaded = load_model(model)
    with pytest.warns(SkmimoodWarning, match="other inference parameters") if differs else nullcontext():
        masks = loaded.predict(healthy[:1])
    np.testing.assert_array_equal(masks, fitted.predict(healthy[:1]))
    with pytest.raises(InputError, match="No network can be trained with the law 'boxes'"):
        loaded[1].fit(loaded[0].transform(healthy))


def test_an_existing_folder_is_kept_unless_overwriting(fitted, model):
    with pytest.raises(ModelSaveError, match="exists already"):
        save_model(fitted, model)
    save_model(fitted, model, overwrite=True)
    load_model(model)


def test_a_folder_that_is_no_model_is_never_replaced(fitted, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelSaveError, match="is not a model"):
        save_model(fitted, tmp_path / "notes", overwrite=True)
    assert (tmp_path / "notes" / "thesis.txt").exists()


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_a_model_and_its_folder_follow_the_umask(fitted, tmp_path, umask):
    before = os.umask(umask)
    try:
        save_model(fitted, tmp_path / "new" / "model")
        (tmp_path / "plain").touch()
    finally:
        os.umask(before)
    usual = (tmp_path / "plain").stat().st_mode & 0o777
    assert usual == 0o666 & ~umask
    files = list((tmp_path / "new" / "model").iterdir())
    assert {file.stat().st_mode & 0o777 for file in files} == {usual}
    folders = tmp_path / "new", tmp_path / "new" / "model"
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o777 & ~umask}


@pytest.mark.parametrize("target", ["run", "not-yet-there"])
def test_a_model_saved_through_a_link_goes_where_the_link_leads(fitted, tmp_path, target):
    save_model(fitted, tmp_path / "run")
    (tmp_path / "latest").symlink_to(target)
    save_model(fitted, tmp_path / "latest", overwrite=target == "run")
    assert (tmp_path / "latest").is_symlink()
    load_model(tmp_path / target)
    assert {path.name for path in tmp_path.iterdir()} == {"latest", "run", target}


def test_a_replaced_model_that_cannot_be_removed_does_not_undo_the_saving(fitted, tmp_path, monkeypatch):
    save_model(fitted, tmp_path / "model")
    before = (tmp_path / "model").stat().st_ino
    monkeypatch.setattr(persistence.shutil, "rmtree", lambda path, ignore_errors=False: None)
    with pytest.warns(SkmimoodWarning, match=r"model is saved, but.*Delete '.model-.*' beside it"):
        save_model(fitted, tmp_path / "model", overwrite=True)
    assert (tmp_path / "model").stat().st_ino != before
    load_model(tmp_path / "model")


def test_an_empty_folder_is_filled_and_stays_the_same_folder(fitted, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    save_model(fitted, ".")
    load_model(".")
    assert sorted(os.listdir()) == ["arrays.safetensors", "manifest.json"]
    assert os.listdir(tmp_path) == ["here"]
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(ModelSaveError, match="here is a mount point, which cannot be replaced"):
        save_model(fitted, ".", overwrite=True)


def test_a_tilde_stands_for_the_home_folder(fitted, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    save_model(fitted, "~/model")
    load_model("~/model")
    assert os.listdir(tmp_path) == ["home"]
    with pytest.raises(InputError, match=r"'~nobody9/m': '~nobody9' is no home folder.*'./~nobody9'"):
        save_model(fitted, "~nobody9/m")
    with pytest.raises(InputError, match="empty text"):
        load_model("")
    with pytest.raises(InputError, match="holds a NUL character"):
        load_model("model\0")


def test_parameters_from_a_numpy_grid_are_saved(healthy, tmp_path):
    steps = small_steps(max_iter=1)
    pipeline = (
        Pipeline(steps).set_params(inpainter__n_steps=np.int64(2), detector__width=np.int64(32)).fit(healthy)
    )
    save_model(pipeline, tmp_path / "model")
    assert load_model(tmp_path / "model")[-1].n_steps == 2


def test_what_is_not_fitted_is_not_saved(tmp_path, quick_pipeline):
    with pytest.raises(NotFittedError):
        save_model(quick_pipeline, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_callable_parameter_cannot_be_saved(fitted, tmp_path):
    original = fitted[1].corruption
    try:
        fitted[1].corruption = len
        with pytest.raises(ModelSaveError, match="corruption="):
            save_model(fitted, tmp_path / "model")
    finally:
        fitted[1].corruption = original
    assert list(tmp_path.iterdir()) == []


def test_a_strange_estimator_is_not_saved(tmp_path):
    class VQTokenizer(BaseEstimator):
        pass

    with pytest.raises(ModelSaveError, match="cannot be saved"):
        save_model(VQTokenizer(), tmp_path / "model")


def test_an_unwritable_place_is_an_error_and_leaves_nothing(fitted, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelSaveError, match="cannot be written"):
        save_model(fitted, tmp_path / "file" / "model")


@pytest.mark.parametrize("name", ["manifest.json", "arrays.safetensors"])
@pytest.mark.parametrize("damage", ["delete", "truncate", "flip a bit", "empty"])
def test_bad_input_48_a_damaged_model_is_refused_whole(model, name, damage):
    file = model / name
    content = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flip a bit":
        content[len(content) * 2 // 3] ^= 1
        file.write_bytes(content)
    else:
        file.write_bytes(b"")
    with pytest.raises(ModelLoadError):
        load_model(model)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelLoadError, match="no folder"):
        load_model(tmp_path / "nothing")
    with pytest.raises(ModelLoadError, match=r"no manifest\.json"):
        load_model(tmp_path)


def test_the_refusal_shows_the_path_given_and_what_is_there(model, tmp_path):
    def fault(path):
        with pytest.raises(ModelLoadError) as error:
            load_model(path)
        return str(error.value)

    other = tmp_path / "some" / "m"
    assert f"{str(other)!r} is not a model: there is no folder of that name" in fault(other)
    other.mkdir(parents=True)
    assert "it is an empty folder" in fault(other)
    for name in ("b.nii", "a.nii", "d", "c"):
        (other / name).touch()
    assert "it is a folder with 'a.nii', 'b.nii', 'c', ...." in fault(other)
    assert "it is a file" in fault(other / "a.nii")
    assert f"Pass the folder {str(model)!r}" in fault(model / "manifest.json")
    shutil.copytree(model, other / "best")
    assert f"holds the model 'best'. Pass {str(other / 'best')!r}" in fault(other)


def test_bad_input_48_a_model_of_a_newer_version_names_the_version(model):
    rewrite_manifest(model, lambda content: content.update(format_version=99, skmimood_version="9.9"))
    with pytest.raises(ModelLoadError, match=r"99, written by skmimood '9\.9'"):
        load_model(model)


def test_vulnerability_safe_loader_no_class_outside_the_registry_is_ever_imported(model):
    rewrite_manifest(model, lambda content: step(content, 0).update({"class": "os.system"}))
    with pytest.raises(ModelLoadError, match=r"'os\.system' is not known"):
        load_model(model)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: step(content, 0)["fitted"]["config_"].update(patch_size=1, image_channels=4),
        lambda content: step(content, 0)["fitted"].update(grid_=[3, 3]),
        lambda content: step(content, 0)["fitted"].update(image_shape_=[8, 8]),
        lambda content: step(content, 0)["fitted"].update(image_shape_=[2, 32, 32]),
        lambda content: step(content, 1)["fitted"].update(grid_="small"),
        lambda content: step(content, 1)["fitted"].update(seed_=0.5),
        lambda content: step(content, 2)["fitted"].update(threshold_="high"),
        lambda content: step(content, 1)["fitted"]["config_"].update(width=64),
        lambda content: step(content, 1)["fitted"]["config_"].update(depth=3),
        lambda content: step(content, 1)["fitted"]["config_"].update(depth=10**12),
        lambda content: step(content, 1)["fitted"].pop("config_"),
        lambda content: step(content, 1)["params"].update(colour="red"),
        lambda content: content["estimator"].pop("steps"),
        lambda content: step(content, 2)["fitted"].pop("threshold_"),
        lambda content: step(content, 2)["fitted"].update(memory="elsewhere"),
        lambda content: step(content, 2)["fitted"].update(predict="nothing"),
        lambda content: content.update(estimator=[1, 2]),
    ],
)
def test_bad_input_48_a_manifest_that_does_not_fit_the_weights_is_refused(model, change):
    rewrite_manifest(model, change)
    with pytest.raises(ModelLoadError):
        load_model(model)


@pytest.mark.parametrize("width", [2**16, 2**40])
def test_vulnerability_decompression_bomb_a_network_that_is_announced_too_large_takes_no_memory(model, width):
    rewrite_manifest(model, lambda content: step(content, 1)["fitted"]["config_"].update(width=width))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelLoadError, match=r"do not fit its architecture|out of range"):
        load_model(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * before  # its weights would take 100 GB


class Tower(nn.Module):
    """As many layers of one weight as is asked for."""

    def __init__(self, *, depth, widths=()):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1, width, bias=False) for width in (*widths, *[1] * depth))


@pytest.mark.parametrize("config", [{"depth": 2**16}, {"depth": 0, "widths": [1] * 2**16}])
def test_vulnerability_decompression_bomb_a_network_of_more_layers_than_weights_is_not_built(
    config, monkeypatch
):
    weights = {f"layers.{k}.weight": np.ones((1, 1), np.float32) for k in range(3)}
    built = []
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda layer: built.append(layer))
    monkeypatch.setattr(DenoisingAutoencoder, "_network_class", Tower)
    DenoisingAutoencoder()._check_state({"depth": 3}, weights)
    with pytest.raises(ModelLoadError, match=r"do not fit its architecture|out of range"):
        DenoisingAutoencoder()._check_state(config, weights)
    assert 3 <= len(built) < 20


class Attack:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


def test_vulnerability_pickle_a_model_is_never_unpickled(fitted, healthy, model, monkeypatch):
    with monkeypatch.context() as patch:
        for module in (pickle, torch, joblib):
            patch.setattr(module, "load", lambda *arguments, **options: pytest.fail("it was unpickled"))
        load_model(model).predict(healthy[:1])
    (model / "arrays.safetensors").write_bytes(pickle.dumps(Attack()))
    digest = hashlib.sha256((model / "arrays.safetensors").read_bytes()).hexdigest()
    rewrite_manifest(model, lambda content: content.update(arrays_sha256=digest))
    with pytest.raises(ModelLoadError, match="cannot be read"):
        load_model(model)
    (model / "manifest.json").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ModelLoadError, match="cannot be read"):
        load_model(model)


def test_bad_input_48_weights_that_are_nan_are_refused(fitted, tmp_path):
    from sklearn.base import clone

    broken = clone(fitted[0])
    vars(broken).update({name: value for name, value in vars(fitted[0]).items() if name != "_loaded"})
    broken.state_ = {
        name: np.full_like(array, np.nan) if "weight" in name else array
        for name, array in broken.state_.items()
    }
    save_model(broken, tmp_path / "model")
    with pytest.raises(ModelLoadError, match="NaN"):
        load_model(tmp_path / "model")
