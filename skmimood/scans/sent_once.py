"""Objects that many tasks need, and that each worker unpickles once."""

from __future__ import annotations

import functools
import pickle
import uuid
from typing import Any, Generic, TypeVar

import cloudpickle
import numpy as np

Thing = TypeVar("Thing")


class SentOnce(Generic[Thing]):
    """A picklable object, as an argument of many tasks of a joblib backend.

    It travels as one array of bytes, which loky maps into the memory of its workers where it is large, and which dask
    scatters; a worker unpickles it with the first task and keeps it until another comes.

    Parameters
    ----------
    thing : object
        As it is now; later changes are not sent.
    """

    def __init__(self, thing: Thing) -> None:
        self._name = uuid.uuid4().hex
        self._pickled = np.frombuffer(cloudpickle.dumps(thing), np.uint8)

    def get(self) -> Thing:
        """Return the object, the same at every call in a process."""
        return _unpickled(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SentOnce) and self._name == other._name

    def __hash__(self) -> int:
        return hash(self._name)


@functools.lru_cache(maxsize=1)
def _unpickled(sent: SentOnce[Any]) -> Any:
    return pickle.loads(sent._pickled.data)
