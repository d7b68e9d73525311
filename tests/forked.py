"""What test_threads.py runs in a process of its own: processes forked from one that used two threads of torch."""

import multiprocessing
import os

import joblib
import numpy as np
import torch
from conftest import make_slices, small_steps
from rounding import assert_same
from sklearn.cluster import KMeans
from sklearn.pipeline import Pipeline

from skmimood.baselines import HealthyZScore
from skmimood.exceptions import DeviceError


def small_pipeline():
    """Return a pipeline whose slices are large enough for torch to divide the work on them."""
    pipeline = Pipeline(small_steps(max_iter=1, batch_size=4, validation_fraction=0.25))
    return pipeline.set_params(tokenizer__channels=32, detector__threshold=0.0)


def maps_of(pipeline, slices):
    return pipeline.decision_function(slices)


def fitted_maps(slices):
    return small_pipeline().fit(slices).decision_function(slices)


def template_maps(slices):
    """Fit a method whose groups scikit-learn finds, which has OpenMP threads of its own."""
    return HealthyZScore(n_templates=2, random_state=0).fit(slices).decision_function(slices)


def by_fork(pipeline, slices):
    """Send the maps through a pipe from a process made by the bare system call."""
    receiver, sender = os.pipe()
    if os.fork() == 0:
        with os.fdopen(sender, "wb") as stream:
            stream.write(maps_of(pipeline, slices).tobytes())
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as stream:
        return np.frombuffer(stream.read(), np.float32).reshape(slices.shape)


def by_pool(function, *arguments):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(function, arguments)


def by_joblib(pipeline, slices):
    parts = np.split(slices, 2)
    with joblib.Parallel(2, backend="multiprocessing") as pool:
        return np.concatenate(pool(joblib.delayed(maps_of)(pipeline, part) for part in parts))


def with_threads(pipeline, slices):
    """Return what a forked process is told that asks for threads again."""
    torch.set_num_threads(2)
    try:
        maps_of(pipeline, slices)
    except DeviceError as error:
        return str(error)


def main():
    torch.set_num_threads(2)
    slices = make_slices(4, size=64)
    KMeans(2, n_init=1).fit(np.random.default_rng(0).random((2000, 2)))
    pipeline = small_pipeline().fit(slices)
    expected = maps_of(pipeline, slices)
    ways = {
        "fork": lambda: by_fork(pipeline, slices),
        "multiprocessing": lambda: by_pool(maps_of, pipeline, slices),
        "joblib": lambda: by_joblib(pipeline, slices),
        "fit": lambda: by_pool(fitted_maps, slices),
        "templates": lambda: by_pool(template_maps, slices),
    }
    for name, way in ways.items():
        assert_same(way(), template_maps(slices) if name == "templates" else expected)
        print(name, flush=True)
    print(by_pool(with_threads, pipeline, slices))
    assert torch.get_num_threads() == 2
    np.testing.assert_array_equal(maps_of(pipeline, slices), expected)


if __name__ == "__main__":
    main()
