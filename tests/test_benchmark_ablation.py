import json

import numpy as np
import pytest
from benchmark_toys import toy_set
from conftest import small_steps
from sklearn.pipeline import Pipeline

from benchmarks.commands import ablation
from benchmarks.commands.options import listed
from benchmarks.protocol.methods import METHODS, Settings
from benchmarks.protocol.variants import VARIANTS, relative
from skmimood.exceptions import InputError


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_changes_parameters_that_the_recipe_has(name, tmp_path):
    pipeline = METHODS["mimood"].build(Settings("tiny", 0, cache=tmp_path))
    known = pipeline.get_params()
    assert set(VARIANTS[name]) <= set(known)


def test_a_variant_of_lambda_is_a_multiple_of_the_chosen_one():
    chosen = {"detector__threshold": 0.02, "inpainter__maps__erosion": 3}
    assert relative({"detector__threshold": 0.5}, chosen) == {"detector__threshold": 0.01}
    assert relative({"inpainter__maps__erosion": 0}, chosen) == {"inpainter__maps__erosion": 0}


def test_an_unknown_variant_is_refused_with_the_choices():
    assert listed("R = 1; recipe", VARIANTS, "variant", ";") == ["recipe", "R = 1"]
    with pytest.raises(InputError, match="no variant 'R = 3'"):
        listed("R = 3", VARIANTS, "variant", ";")


@pytest.mark.filterwarnings("ignore:The codebook has collapsed")
@pytest.mark.filterwarnings("ignore:a false-positive rate of")
def test_the_figures_of_a_variant_are_those_of_val():
    slices = toy_set()
    figures = ablation.measure(Pipeline(small_steps(max_iter=2)), slices, None, {})
    assert {"token_ap", "ap", "best_dice", "fit_seconds", "seconds_per_32"} <= set(figures)
    assert all(np.isfinite(value) for value in figures.values())
    assert json.loads(json.dumps(figures)) == figures
