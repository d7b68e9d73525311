import pytest
import torch

from skmimood._device import out_of_memory_advice, resolve_device, resolve_precision
from skmimood.exceptions import DeviceError, InputError


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
    with pytest.raises(DeviceError, match="try batch_size=8"), out_of_memory_advice(16):
        raise torch.OutOfMemoryError
