"""The estimators that train one network: parameters checked, trainings cached, pickles of numpy alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import joblib
import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor, nn

from skmimood.exceptions import InputError, ModelLoadError
from skmimood.networks.batches import run_in_batches
from skmimood.networks.weights import load_network, weight_shapes
from skmimood.runtime.cache import has_callable, run_cached
from skmimood.runtime.code_digest import code_digest
from skmimood.runtime.device import autocast, learning, resolve_device, resolve_precision
from skmimood.runtime.paths import expand
from skmimood.runtime.progress import tell
from skmimood.runtime.streams import shared_seed
from skmimood.training.loop import Runtime
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup, SliceEstimator
from skmimood.validation.learnt import as_learnt
from skmimood.validation.rules import MAX_LEVELS, Rule, is_count

_SEED: Rule = (
    lambda seed: not isinstance(seed, int | np.integer) or seed >= 0,
    "None, a RandomState or an integer of at least 0",
)
_DEVICE: Rule = (lambda name: name == "auto" or torch.device(name), "'auto', 'cpu', 'cuda' or 'cuda:0'")
_ARRAY_GROUPS = ("state_", "history_")
_MAX_SIZE = 2**16  # of any one dimension of a network that is read from a file


class TrainedStep(SliceEstimator):
    """Base of the estimators that train one network.

    The torch module is built when first used and never pickled, so that an estimator pickles without a device.

    Attributes
    ----------
    state_ : dict of str to ndarray
        Weights of the network.
    config_ : dict
        Arguments that build the network.
    history_ : dict of str to ndarray
        ``loss`` of each step; ``validation_loss`` at each ``validation_step``.
    n_iter_ : int
        Training steps made.
    seed_ : int
        Seed drawn from ``random_state``.
    precision_ : {"float32", "bfloat16"}
        Precision of the training, and of inference where ``precision="auto"``.
    fitted_with_ : dict
        Parameters that need a refit and that inference needs besides ``config_``, as they were in fit.
    """

    training: Training | None = None
    random_state: Annotated[Any, _SEED] = None
    device: Annotated[str, _DEVICE] = "auto"
    memory: str | joblib.Memory | None = None
    verbose: bool = False

    _network_class: ClassVar[type[nn.Module]]
    _learnt: ClassVar[tuple[str, ...]]  # what a subclass learns besides the attributes above
    _kept: ClassVar[tuple[str, ...]] = ()  # the parameters in ``fitted_with_``

    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {"training": Training()}

    def _heads_fault(self, prefix: str = "") -> Iterator[str]:
        width, n_heads = getattr(self, f"{prefix}width"), getattr(self, f"{prefix}n_heads")
        if is_count(width) and is_count(n_heads) and width % n_heads:
            yield f"{prefix}width must be a multiple of {prefix}n_heads; got {width} and {n_heads}"

    def _validation_fraction(self) -> float:
        return self._training.validation_fraction

    def _precision(self) -> str:
        """Return the precision to compute in; "auto" was decided where the network was trained."""
        precision = self._training.precision
        return precision if precision != "auto" else getattr(self, "precision_", "auto")

    @property
    def _training(self) -> Training:
        return self._nested("training")

    def _fit_network(
        self, train: Callable[..., dict[str, Any]], config: dict[str, Any], held_out: float, *,
        seed: int | None = None, **arguments: Any,
    ) -> None:  # fmt: skip
        """Train through the cache and keep what was learnt; ``seed`` is drawn from ``random_state`` unless given."""
        seed = shared_seed(self.random_state) if seed is None else seed
        self._learn(**self._train(train, config, held_out, seed, **arguments), config=config, seed=seed)

    def _learn(
        self, state: dict[str, np.ndarray], history: dict[str, np.ndarray], config: dict[str, Any], seed: int
    ) -> None:
        """Set what every trained step learns."""
        self.state_, self.history_, self.config_ = state, history, config
        self.seed_, self.precision_ = seed, self._recipe().precision
        self.n_iter_ = len(history["loss"])
        self.fitted_with_ = self._values(*self._kept)
        self.__dict__.pop("_loaded", None)

    def _as_fitted(self, name: str) -> Any:
        """Return a parameter as it was in fit; before a fit, as it is."""
        return getattr(self, "fitted_with_", vars(self))[name]

    def _train(
        self, train: Callable[..., dict[str, Any]], config: dict[str, Any], held_out: float, seed: int, **arguments: Any
    ) -> dict[str, Any]:  # fmt: skip
        """Return ``train(config=, recipe=, seed=, runtime=, **arguments)``, called through the cache.

        ``held_out`` is the share at the end of the samples that validates: see `healthy_samples`.
        """
        recipe = self._recipe(held_out)
        arguments |= {"config": config, "recipe": recipe, "seed": seed}
        # A callable cannot be told from another of the same name, so what it trained is not cached.
        is_named = not any(map(has_callable, arguments.values()))
        checkpoint = self._checkpoint(train, arguments, is_named)
        resume, shown = self._training.resume, bool(self.verbose)
        runtime = Runtime(type(self).__name__, self.device, shown, checkpoint, resume)
        line = f"{type(self).__name__} was trained before, and is taken from the cache."
        on_hit = functools.partial(tell, line, shown=shown) if resume else None
        with learning(self._torch_device):
            return run_cached(
                train, self.memory if is_named else None, runtime=runtime, on_hit=on_hit, **arguments
            )

    def _recipe(self, held_out: float = 0.0) -> Training:
        """Return how to train: ``held_out`` validates, and the precision is what "auto" means here."""
        precision = resolve_precision(self._training.precision, self._torch_device)
        recipe = clone(self._training).set_params(checkpoint_dir=None, resume=False)
        return recipe.set_params(
            precision=str(precision).removeprefix("torch."), validation_fraction=held_out
        )

    def _checkpoint(
        self, train: Callable[..., Any], arguments: dict[str, Any], is_named: bool
    ) -> Path | None:
        """Return the checkpoint's path, named after everything that the training depends on, its code last."""
        if self._training.checkpoint_dir is None:
            return None
        if not is_named:
            raise InputError(
                "A training with a callable law cannot be resumed; set training__checkpoint_dir=None."
            )
        name = f"{type(self).__name__}-{joblib.hash(arguments)[:16]}-{code_digest(train.__module__)}"
        return expand(self._training.checkpoint_dir) / f"{name}.safetensors"

    @property
    def _torch_device(self) -> torch.device:
        return resolve_device(self.device)

    def _class_of(self, config: Mapping[str, Any]) -> type[nn.Module]:
        """Return the class of the network that ``config`` builds."""
        return self._network_class

    def _network(self) -> nn.Module:
        """Return the fitted network on ``device``, built once."""
        key = (self._torch_device, self._inference_dtype())
        if self.__dict__.get("_loaded", (None,))[0] != key:
            network = load_network(self._class_of(self.config_), self.config_, self.state_)
            self._loaded = (key, network.to(key[0]).to(key[1]))
        return self._loaded[1]

    def _inference_dtype(self) -> torch.dtype:
        """Return the dtype that the weights are kept in for inference; here autocast chooses layer by layer."""
        return torch.float32

    def _autocast(self) -> torch.autocast:
        """Return the context in which torch chooses the precision layer by layer."""
        return autocast(self._torch_device, resolve_precision(self._precision(), self._torch_device))

    def _in_batches(self, function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Return ``function(rows)``, of ``batch_size`` rows at a time under `_autocast`."""

        def run(batch: Tensor) -> Tensor:
            with self._autocast():
                return function(batch)

        return run_in_batches(run, rows, self._training.batch_size)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_loaded"}

    def __skmimood_state__(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what was learnt as arrays and JSON values, for `skmimood.save_model`."""
        arrays = {
            f"{group}{name}": array for group in _ARRAY_GROUPS for name, array in getattr(self, group).items()
        }
        values = {k: v for k, v in vars(self).items() if k.endswith("_") and k not in _ARRAY_GROUPS}
        return arrays, values

    def __skmimood_restore__(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Set what was learnt; nothing is set unless it is complete and fits the architecture."""
        # Older models lack the entry; their parameters say it.
        values = {"fitted_with_": self._values(*self._kept), **values}
        expected = {"config_", "n_iter_", "seed_", "precision_", "fitted_with_", *self._learnt}
        if set(values) != expected or set(values["fitted_with_"]) != set(self._kept):
            raise ModelLoadError(
                f"{type(self).__name__} should have learnt {sorted(expected)}; the file has {sorted(values)}."
            )
        groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in _ARRAY_GROUPS}
        for key, array in arrays.items():
            group, _, name = key.partition("_")
            if f"{group}_" not in groups:
                raise ModelLoadError(f"the array {key!r} belongs to no part of {type(self).__name__}.")
            groups[f"{group}_"][name] = array
        self._check_state(values["config_"], groups["state_"])
        for name, value in (as_learnt(values) | groups).items():
            setattr(self, name, value)

    def _check_state(self, config: dict[str, Any], state: dict[str, np.ndarray]) -> None:
        """Raise `ModelLoadError` unless ``state`` holds finite weights of the network that ``config`` builds."""
        numbers = np.concatenate([np.ravel(value) for value in config.values()])
        has_too_many = len(state) > _MAX_SIZE or max(map(np.size, config.values())) > MAX_LEVELS
        if has_too_many or not ((numbers >= 0) & (numbers <= _MAX_SIZE)).all():
            raise ModelLoadError(f"the sizes of {type(self).__name__} are out of range.")
        shapes = {name: array.shape for name, array in state.items()}
        if weight_shapes(self._class_of(config), config, n_expected=len(state)) != shapes:
            raise ModelLoadError(f"the weights of {type(self).__name__} do not fit its architecture.")
        if not all(np.isfinite(array).all() for array in state.values()):
            raise ModelLoadError(f"the weights of {type(self).__name__} hold NaN or infinite values.")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "state_")
