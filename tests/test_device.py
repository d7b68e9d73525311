import pytest
import torch
from conftest import make_slices, plant_lesions
from rounding import assert_same

from skmimood.exceptions import DeviceError, InputError
from skmimood.networks.batches import run_in_batches
from skmimood.networks.transformer import TokenTransformer
from skmimood.runtime.device import out_of_memory_advice, resolve_device, resolve_precision, with_halving


def refuse_above(size):
    def run(rows):
        if len(rows) > size:
            raise torch.OutOfMemoryError
        return 2 * rows

    return run


def test_auto_is_a_device_that_is_there():
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_an_error_with_a_way_out(name):
    with pytest.raises(DeviceError, match=r"[Uu]se"):
        resolve_device(name)


def test_precision_can_be_forced():
    assert resolve_precision("float32", torch.device("cpu")) is torch.float32
    assert resolve_precision("bfloat16", torch.device("cpu")) is torch.bfloat16


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match="float16"):
        resolve_precision("float16", torch.device("cpu"))


def test_running_out_of_memory_names_the_batch_size_to_try():
    with pytest.raises(DeviceError, match="try training__batch_size=8"), out_of_memory_advice(16):
        raise torch.OutOfMemoryError


def test_a_batch_that_is_too_large_is_halved():
    rows = torch.arange(21)
    torch.testing.assert_close(run_in_batches(refuse_above(4), rows, 8), 2 * rows)


def test_bad_input_48_a_batch_is_halved_but_once_and_then_an_error_names_the_size_to_try():
    with pytest.raises(DeviceError, match="at training__batch_size=8; try training__batch_size=4"):
        run_in_batches(refuse_above(4), torch.arange(21), 16)


def test_a_single_sample_that_is_too_large_is_an_error_with_another_way_out():
    with pytest.raises(DeviceError, match="at training__batch_size=1; try device='cpu'"):
        run_in_batches(refuse_above(0), torch.arange(3), 2)


def test_what_fits_is_run_once():
    sizes = []
    with_halving(sizes.append, 8)
    assert sizes == [8]


@pytest.mark.numerics
def test_restorations_that_run_out_of_memory_are_made_in_halves(quick_pipeline, monkeypatch):
    slices = plant_lesions(make_slices(10))[0]
    quick_pipeline.fit(make_slices(10)).set_params(
        detector__training__batch_size=4, inpainter__training__batch_size=4
    )
    expected, forward = quick_pipeline.decision_function(slices), TokenTransformer.forward
    most = 2

    def refuse(self, tokens, *arguments, **named):
        if len(tokens) > most:
            raise torch.OutOfMemoryError
        return forward(self, tokens, *arguments, **named)

    monkeypatch.setattr(TokenTransformer, "forward", refuse)
    assert_same(quick_pipeline.decision_function(slices), expected)
    most = 1
    with pytest.raises(DeviceError, match="at training__batch_size=2; try training__batch_size=1"):
        quick_pipeline.decision_function(slices)
