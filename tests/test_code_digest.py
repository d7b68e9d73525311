"""Digests of code: what changes them, and that no code which a training depends on is left out."""

import sys

import pytest

from skmimood.runtime.code_digest import _code, code_digest, reached_modules

FILES = {
    "__init__.py": """import importlib

def __getattr__(name):
    if name == 'fall':
        return importlib.import_module('digested.laws').draw
    raise AttributeError(name)
""",
    "fit.py": """'''Fits.'''
from typing import TYPE_CHECKING

import numpy as np
from digested import steps
from .laws import draw

if TYPE_CHECKING:
    from digested.types import Name

def train(x):
    '''Train.'''
    from digested.late import decide
    return decide(draw(steps.step(x)))  # here
""",
    "steps.py": "def step(x):\n    return x + 1\n",
    "laws.py": "from digested.deep.constants import RATE\ndef draw(x):\n    return RATE * x\n",
    "deep/__init__.py": "",
    "deep/constants.py": "RATE = 2\n",
    "late.py": "def decide(x):\n    return x > 3\n",
    "types.py": "Name = str\n",
    "report.py": "from digested import fit\n",
    "lazy.py": "from digested import fall\n",
}


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """Return a function that gives the digest of ``digested.fit``, with some files of the package replaced."""
    monkeypatch.syspath_prepend(tmp_path)

    def of(**changed):
        for name, text in (FILES | {f"{k.replace('__', '/')}.py": v for k, v in changed.items()}).items():
            path = tmp_path / "digested" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        code_digest.cache_clear()
        _code.cache_clear()
        return code_digest("digested.fit")

    yield of
    for name in [name for name in sys.modules if name.partition(".")[0] == "digested"]:
        del sys.modules[name]
    code_digest.cache_clear()
    _code.cache_clear()


@pytest.mark.parametrize(
    "changed",
    [
        {"fit": FILES["fit.py"].replace("steps.step(x)", "steps.step(x + 1)")},
        {"steps": "def step(x):\n    return x + 2\n"},
        {"laws": FILES["laws.py"].replace("RATE * x", "x * RATE")},
        {"deep__constants": "RATE = 3\n"},
        {"late": "def decide(x):\n    return x >= 3\n"},
    ],
)
def test_changed_code_anywhere_below_a_module_changes_its_digest(digest, changed):
    assert digest(**changed) != digest()


@pytest.mark.parametrize(
    "changed",
    [
        {"fit": FILES["fit.py"].replace("'''Train.'''", "'''Trains.'''").replace("# here", "# there")},
        {"laws": FILES["laws.py"].replace("\ndef", "\n\n# Laws.\n\n\ndef")},
        {"types": "Name = int\n"},
        {"report": "def show():\n    pass\n"},
    ],
)
def test_words_types_and_code_above_a_module_do_not(digest, changed):
    assert digest(**changed) == digest()


def test_a_name_that_a_package_loads_on_first_use_counts_with_its_module(digest):
    digest()
    assert reached_modules("digested.lazy") >= {"digested.laws", "digested.deep.constants"}


def test_of_other_packages_this_one_alone_counts(digest):
    before = digest()
    digest(late="import numpy\nfrom skmimood import VQTokenizer\n\ndef decide(x):\n    return x > 3\n")
    reached = reached_modules("digested.fit")
    assert {"skmimood.tokens.tokenizer", "skmimood.networks.vqvae"} <= reached
    assert not any(name.startswith("numpy") for name in reached)
    assert code_digest("digested.fit") != before


TRAININGS = {
    "tokens.tokenizer": {
        "networks.vqvae",
        "networks.quantizer",
        "training.augmentation",
        "preprocessing.heads",
    },
    "tokens.copies": {
        "training.painted_anomalies",
        "training.augmentation",
        "tokens.background",
        "networks.vqvae",
    },
    "tokens.detector": {"networks.unet", "networks.transformer", "tokens.corruption", "tokens.background"},
    "tokens.inpainter": {"networks.unet", "networks.transformer", "tokens.corruption", "tokens.background"},
    "tokens.autoregressive": {"networks.causal_transformer", "tokens.sampling"},
    "tokens.likelihood": {"networks.transformer", "tokens.inpainter", "tokens.corruption"},
    "tokens.critic": {"networks.transformer", "tokens.inpainter", "tokens.corruption", "tokens.sampling"},
    "training.denoising": {"networks.unet", "training.augmentation"},
    "tokens.latent_diffusion": {"networks.unet"},
    "detectors.masked_autoencoder": {"networks.mae", "detectors.pseudo_abnormal"},
    "detectors.variational": {"networks.vae"},
    "detectors.foreign_patch": {"networks.unet", "training.augmentation", "preprocessing.thumbnails"},
    "detectors.vae_gan": {"networks.adversarial", "networks.vae", "training.augmentation"},
    "detectors.fanogan": {"networks.adversarial", "networks.vae", "training.augmentation"},
    "detectors.reverse_distillation": {"networks.distillation", "networks.features", "detectors.backbone"},
    "detectors.student_teacher": {"networks.flow", "networks.features", "detectors.backbone"},
    "detectors.synthetic": {"networks.unet", "training.painted_anomalies"},
}


@pytest.mark.parametrize("module", TRAININGS)
def test_all_that_a_training_depends_on_counts(module):
    reached = reached_modules(f"skmimood.{module}")
    everywhere = {
        "training.loop",
        "runtime.streams",
        "runtime.device",
        "runtime.distributed",
        "networks.weights",
    }
    assert {f"skmimood.{name}" for name in TRAININGS[module] | everywhere} <= reached
    above = ("skmimood.jobs", "skmimood.cli", "skmimood.scans", "skmimood.estimators")
    assert not any(name.startswith(above) for name in reached)


def test_every_module_with_a_training_is_tested_here():
    import re
    from pathlib import Path

    import skmimood

    root = Path(skmimood.__file__).parent
    found = {
        ".".join(path.relative_to(root).with_suffix("").parts)
        for path in root.rglob("*.py")
        if re.search(r"^def (train_|tokenize_)", path.read_text(), re.MULTILINE)
    }
    assert found - {"detectors.pseudo_abnormal"} == set(TRAININGS) - {"tokens.likelihood"}
