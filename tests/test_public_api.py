import subprocess
import sys

import pytest

import skmimood


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("name", skmimood.__all__)
def test_every_public_name_is_there_and_documented(name):
    public = getattr(skmimood, name)
    assert name in dir(skmimood)
    assert name == "__version__" or public.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        skmimood.nothing  # noqa: B018


def test_importing_the_package_loads_no_heavy_library():
    code = "import skmimood, sys; print([m for m in ('torch', 'sklearn', 'numpy', 'nibabel') if m in sys.modules])"
    assert run_python(code) == "[]"


def test_metrics_and_errors_need_no_torch():
    code = "import skmimood.metrics, skmimood.exceptions, sys; print('torch' in sys.modules)"
    assert run_python(code) == "False"
