"""Fitted estimators as a folder of safetensors and JSON; no pickle, and no class outside a closed registry."""

from __future__ import annotations

import ctypes
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

import skmimood
from skmimood.estimators import ESTIMATORS, load_estimator
from skmimood.exceptions import ModelLoadError, ModelSaveError, warn
from skmimood.runtime import distributed
from skmimood.runtime.paths import expand
from skmimood.validation.old_names import nested

FORMAT_VERSION = 2  # 1 had the parameters of `Training` and `ResidualMaps` beside the others
_MANIFEST, _ARRAYS = "manifest.json", "arrays.safetensors"
_BEGUN = {
    _ARRAYS,
    f"{_ARRAYS}.part",
    f"{_MANIFEST}.part",
}  # in a folder that a saving, then killed, was filling
_MAX_MANIFEST_BYTES = 2**24
_SHOWN = 3  # names of what lies where a model should be

# Where and how visibly an estimator runs is no part of a model, nor where weights came from that it holds itself; a
# saved path would tell of its machine.
_RUNTIME = {"memory", "device", "verbose", "checkpoint_dir", "resume", "n_jobs", "backbone"}
# Removed parameters, and the value that the code now stands for.
RETIRED = {"n_passes": 1, "order": "confidence", "residual_reference": "image", "selection": "pseudo"}


def save_model(estimator: BaseEstimator, path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Save a fitted estimator or pipeline as a folder; of processes that train together, the first alone does.

    Parameters
    ----------
    estimator : fitted estimator of skmimood, or Pipeline of such
    path : str or path
        The folder. It appears complete or not at all. A link is followed; an empty folder is filled.
    overwrite : bool, default=False
        Replace the model that is there.

    Raises
    ------
    ModelSaveError
        If the folder exists, cannot be written, or a parameter (a callable) cannot be stored.
    NotFittedError
        If the estimator is not fitted.
    """
    path = Path(os.path.realpath(expand(path)))
    if not distributed.is_first():
        return
    check_replaceable(path, overwrite)
    arrays: dict[str, np.ndarray] = {}
    node = _pack(estimator, "", arrays)
    temporary = path.with_name(f"{_hidden_name(path)}{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        try:
            # Written by us and not by safetensors, whose files none but their owner may read.
            (temporary / _ARRAYS).write_bytes(save({k: np.array(v, order="C") for k, v in arrays.items()}))
            _write_manifest(temporary, node)
            _put_in_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise ModelSaveError(
            f"{path.name} cannot be written: {error.strerror or error}. Nothing was saved."
        ) from error


def is_free(path: Path) -> bool:
    """Tell whether a model can be put at ``path`` without replacing anything: there is nothing, or an empty folder."""
    return not os.path.lexists(path) or (path.is_dir() and {each.name for each in path.iterdir()} <= _BEGUN)


def remove_leftovers(path: Path) -> None:
    """Remove what savings to ``path`` that were killed have left beside it; none may be at work."""
    hidden = _hidden_name(path)
    for folder in path.parent.glob(f"{glob.escape(hidden)}*"):
        if re.fullmatch("[0-9a-f]{8}(-old)?", folder.name.removeprefix(hidden)):
            shutil.rmtree(folder, ignore_errors=True)


def _hidden_name(path: Path) -> str:
    """Return what the names of folders begin with in which a model is before it stands at ``path``."""
    return f".{path.name[:40]}-"


def load_model(path: str | os.PathLike) -> Any:
    """Load what `save_model` has written, onto whatever machine this is.

    Returns
    -------
    estimator
        Fitted, with ``device="auto"``.

    Raises
    ------
    ModelLoadError
        If the folder is missing, incomplete, damaged, of a newer version, or holds NaN weights.
    """
    path = expand(path)
    content = read_manifest(path)
    arrays = _read_arrays(path, content)
    try:
        return _unpack(_without_retired(content["estimator"]), "", arrays)
    except ModelLoadError as error:
        raise ModelLoadError(f"{str(path)!r}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelLoadError(f"{str(path)!r}: the manifest does not describe a model ({error}).") from error


def check_replaceable(path: Path, overwrite: bool) -> None:
    """Raise `ModelSaveError` unless ``path`` is free or, with ``overwrite``, holds a model that can be replaced."""
    name = path.name or path
    try:
        os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:  # a name too long, or a file where a folder should be
        raise ModelSaveError(f"{name} cannot be written: {error.strerror}. Choose another path.") from error
    if is_free(path):
        return
    if not overwrite:
        raise ModelSaveError(
            f"{name} exists already. Choose another path or pass overwrite=True (--overwrite)."
        )
    if not (path / _MANIFEST).is_file():
        raise ModelSaveError(f"{name} is not a model, so it is not overwritten. Choose another path.")
    if os.path.ismount(path):
        raise ModelSaveError(f"{name} is a mount point, which cannot be replaced. Choose a folder in it.")


def fingerprint(path: Path) -> str:
    """Return a digest of a saved model; its manifest carries a checksum of the networks too."""
    return hashlib.sha256((path / _MANIFEST).read_bytes()).hexdigest()[:16]


def _put_in_place(new: Path, path: Path) -> None:
    """Move a folder to ``path``; what stood there is deleted only once the new one stands."""
    if not os.path.lexists(path):
        os.replace(new, path)
        return
    if is_free(path):  # it may be a mount point, or where the user stands: so it stays, and is filled
        for name in (_ARRAYS, _MANIFEST):  # this order, since a manifest makes it a model
            shutil.move(new / name, path / f"{name}.part")  # may copy
            os.replace(path / f"{name}.part", path / name)
        return
    old = new
    if not _exchange(new, path):
        old = new.with_name(f"{new.name}-old")
        os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            os.replace(old, path)
            raise
    shutil.rmtree(old, ignore_errors=True)
    if old.exists():
        warn(
            f"{path.name} is saved, but the model that it replaced could not be removed whole. Delete {old.name!r} "
            "beside it.",
            stacklevel=4,
        )


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, of which a kill leaves no half; tell whether the system can."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _write_manifest(folder: Path, node: dict[str, Any]) -> None:
    content = {
        "format": "skmimood-model",
        "format_version": FORMAT_VERSION,
        "skmimood_version": skmimood.__version__,
        "arrays_sha256": _file_hash(folder / _ARRAYS),
        "estimator": node,
    }
    manifest = {"sha256": _content_hash(content), **content}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the verified content of the manifest in ``path``."""
    file = path / _MANIFEST
    if not os.path.lexists(file):
        raise ModelLoadError(f"{str(path)!r} is not a model: {_what_is_at(path)}")
    try:
        if file.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ModelLoadError(f"{str(path)!r}: {_MANIFEST} is larger than {_MAX_MANIFEST_BYTES} bytes.")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(
            f"{str(path)!r}: {_MANIFEST} cannot be read ({type(error).__name__})."
        ) from error
    if not isinstance(content, dict) or content.get("format") != "skmimood-model":
        raise ModelLoadError(f"{str(path)!r}: {_MANIFEST} is not that of an skmimood model.")
    version = content.get("format_version")
    if version not in range(1, FORMAT_VERSION + 1):
        raise ModelLoadError(
            f"{str(path)!r} has format version {version!r}, written by skmimood "
            f"{content.get('skmimood_version')!r}; this is skmimood {skmimood.__version__}, which reads versions 1 "
            f"to {FORMAT_VERSION}. Install the version that wrote it."
        )
    if content.pop("sha256", None) != _content_hash(content):
        raise ModelLoadError(f"{str(path)!r}: {_MANIFEST} is damaged (checksum). Copy the model again.")
    return content


def _what_is_at(path: Path) -> str:
    """Say what lies where a model should be, and what to do."""
    if path.name in (_MANIFEST, _ARRAYS):
        return f"it is a part of one. Pass the folder {str(path.parent)!r}."
    if not path.is_dir():
        found = "it is a file" if path.is_file() else "there is no folder of that name"
        return f"{found}. Pass the folder that fit or save has written."
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        return f"its folder cannot be read ({error.strerror}). Check its permissions."
    models = [name for name in names if (path / name / _MANIFEST).is_file()]
    if models:
        return f"it has no {_MANIFEST}, but holds the model {models[0]!r}. Pass {str(path / models[0])!r}."
    shown = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    inside = f"a folder with {shown}" if names else "an empty folder"
    return f"it has no {_MANIFEST}; it is {inside}. Pass the folder that fit or save has written."


def _read_arrays(path: Path, content: dict[str, Any]) -> dict[str, np.ndarray]:
    file = path / _ARRAYS
    try:
        if _file_hash(file) != content.get("arrays_sha256"):
            raise ModelLoadError(
                f"{str(path)!r}: {_ARRAYS} is damaged or incomplete (checksum). Copy the model again."
            )
        return load_file(file)
    except FileNotFoundError:
        raise ModelLoadError(f"{str(path)!r} is incomplete: it has no {_ARRAYS}.") from None
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(f"{str(path)!r}: {_ARRAYS} cannot be read ({error}).") from error


def _content_hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _file_hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else (
            hashlib.sha256(stream.read()).hexdigest()
        )  # fmt: skip


def _pack(estimator: Any, prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Describe ``estimator`` as JSON and put its arrays into ``arrays`` under ``prefix``."""
    if type(estimator) is Pipeline:
        steps = [[name, _pack(step, f"{prefix}{name}/", arrays)] for name, step in estimator.steps]
        return {"class": "Pipeline", "steps": steps}
    name = type(estimator).__name__
    if name not in ESTIMATORS or type(estimator).__module__ != ESTIMATORS[name]:
        raise ModelSaveError(
            f"A {name} cannot be saved; only {sorted(ESTIMATORS)} and pipelines of them can."
        )
    check_is_fitted(estimator)
    own_arrays, values = estimator.__skmimood_state__()
    arrays |= {f"{prefix}{key}": array for key, array in own_arrays.items()}
    fitted = json.loads(
        json.dumps(values, default=lambda number: number.item())
    )  # numpy's numbers become Python's
    node = {"class": name, "params": dict(_parameters(estimator)), "fitted": fitted}
    if hasattr(estimator, "pipeline_"):
        node["pipeline_"] = _pack(estimator.pipeline_, f"{prefix}pipeline_/", arrays)
    return node


def _parameters(estimator: BaseEstimator) -> Iterator[tuple[str, Any]]:
    for name, value in estimator.get_params(deep=False).items():
        if name in _RUNTIME or name == "pipeline":
            continue
        if name == "random_state" and not isinstance(value, int | np.integer | None):
            value = None  # a generator object; the seed that was drawn from it is a fitted attribute
        if isinstance(value, np.generic):
            value = value.item()
        if value is None and name in getattr(estimator, "_defaults", {}):
            value = estimator._defaults[name]  # another version may have other defaults
        if isinstance(value, BaseEstimator):
            value = dict(_parameters(value))
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ModelSaveError(
                f"{type(estimator).__name__}: the parameter {name}={value!r} cannot be stored. Use a named choice."
            ) from error
        yield name, list(value) if isinstance(value, tuple) else value


def _unpack(node: dict[str, Any], prefix: str, arrays: dict[str, np.ndarray]) -> Any:
    name = node["class"]
    if name == "Pipeline":
        return Pipeline(
            [(str(step), _unpack(child, f"{prefix}{step}/", arrays)) for step, child in node["steps"]]
        )
    if name not in ESTIMATORS:  # a manifest never names a module
        raise ModelLoadError(f"the class {name!r} is not known to skmimood {skmimood.__version__}.")
    estimator_class = load_estimator(name)
    parameters = _estimator_parameters(estimator_class, node["params"])
    own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    if "pipeline_" in node:
        pipeline = _unpack(node["pipeline_"], f"{prefix}pipeline_/", arrays)
        estimator = estimator_class(clone(pipeline), **parameters)
        estimator.pipeline_ = pipeline
        own = {key: array for key, array in own.items() if not key.startswith("pipeline_/")}
    else:
        estimator = estimator_class(**parameters)
    estimator.__skmimood_restore__(own, node["fitted"])
    return estimator


def _without_retired(node: Any, part: str = "") -> Any:
    """Take out of a manifest what is `RETIRED`, with a warning if maps depend on it.

    A calibration with such a value keeps it, so that a prediction warns too.
    """
    if isinstance(node, list):
        return [_without_retired(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        step, _, name = key.rpartition("__")
        if name not in RETIRED:
            kept[key] = _without_retired(value, key)
            continue
        is_idle = name == "order" and node.get(f"{step}__n_passes" if step else "n_passes", 1) == 1
        if value == RETIRED[name] or name == "selection" or is_idle:
            continue
        if part == "calibrated_with_":
            kept[key] = value
        elif part == "params":
            warn(
                f"The model was made with {name}={value!r}, a removed parameter: maps are computed with "
                f"{RETIRED[name]!r} and differ from those that its thresholds come from. Set the thresholds again, "
                "or use the version that wrote it.",
                stacklevel=4,
            )
    return kept


def _estimator_parameters(estimator_class: Any, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a manifest as those of the constructor, also the flat ones of format 1."""
    defaults = getattr(estimator_class, "_defaults", {})
    parameters: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in nested(defaults, saved).items()
        if key not in _RUNTIME
    }
    for name in parameters.keys() & defaults.keys():
        saved_group = type(defaults[name])(**_estimator_parameters(defaults[name], parameters[name]))
        parameters[name] = None if saved_group == defaults[name] else saved_group
    return parameters
