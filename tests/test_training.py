import numpy as np
import pytest
import torch
from conftest import build
from sklearn.base import clone
from torch import nn

from skmimood import VQTokenizer
from skmimood.exceptions import InputError, SkmimoodWarning, TrainingDivergedError
from skmimood.training.loop import Runtime, split_validation, train
from skmimood.training.parameters import Training

RECIPE = Training(
    max_iter=60, batch_size=8, learning_rate=0.05, weight_decay=0.0, warmup_iter=5, gradient_clip=1.0,
    validation_fraction=0.25, n_iter_no_change=None, precision="float32",
)  # fmt: skip
POINTS = torch.linspace(-1, 1, 40)[:, None]


def line() -> nn.Linear:
    network = nn.Linear(1, 1)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    return network


def distance_to_line(network, indices, streams, training):
    x = POINTS[indices]
    noise = 0.01 * torch.randn(x.shape, generator=streams.torch) if training else 0
    return (network(x) - 3 * x + 1 + noise).square().mean()


def run(loss=distance_to_line, runtime=None, **changes):
    recipe = clone(RECIPE).set_params(**changes)
    return train(line(), loss, len(POINTS), recipe, runtime or Runtime("test"), seed=0)


class InterruptError(Exception):
    pass


def interrupted_at(step: int, loss=distance_to_line):
    calls = iter(range(10**6))

    def wrapped(network, indices, streams, training):
        if training and next(calls) == step:
            raise InterruptError
        return loss(network, indices, streams, training)

    return wrapped


def once_nan(step: int):
    calls = iter(range(10**6))

    def wrapped(network, indices, streams, training):
        loss = distance_to_line(network, indices, streams, training)
        return loss * float("nan") if training and next(calls) == step else loss

    return wrapped


def test_training_finds_the_minimum():
    trained = run(max_iter=400)
    assert trained["state"]["weight"].item() == pytest.approx(3, abs=0.1)
    assert trained["state"]["bias"].item() == pytest.approx(-1, abs=0.1)


def test_the_history_holds_every_step_and_validation():
    history = run()["history"]
    assert history["loss"].shape == (60,)
    assert history["validation_step"].tolist() == list(range(3, 61, 3))
    assert history["validation_loss"].shape == (20,)


def test_the_last_share_of_the_samples_validates():
    training, validation = split_validation(40, 0.25)
    assert training.tolist() == list(range(30))
    assert validation.tolist() == list(range(30, 40))


def test_the_learning_rate_warms_up_and_falls_to_zero_along_a_cosine():
    from skmimood.training.loop import _Trainer

    trainer = _Trainer(line(), distance_to_line, 40, RECIPE, Runtime("test"), 0)
    rates = []
    for trainer.progress.step in range(61):
        rates.append(trainer._schedule())
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5 + 55 // 2] == pytest.approx(0.5, abs=0.02)
    assert rates[60] == pytest.approx(0, abs=1e-9)


def test_a_single_sample_is_never_held_out():
    training, validation = split_validation(1, 0.5)
    assert (len(training), len(validation)) == (1, 0)


def test_the_best_weights_are_kept_not_the_last():
    calls = iter(range(10**6))

    def worse_later(network, indices, streams, training):
        if training:
            return distance_to_line(network, indices, streams, training)
        return torch.tensor(float(next(calls)))

    first = run(worse_later, max_iter=60)["state"]["weight"]
    # With the first validation the best, the weights are those after three steps.
    assert abs(first.item()) < 0.2


def test_training_stops_early_when_nothing_improves():
    def flat(network, indices, streams, training):
        return distance_to_line(network, indices, streams, training) if training else torch.tensor(1.0)

    history = run(flat, n_iter_no_change=9)["history"]
    assert len(history["loss"]) == 12


def test_a_resumed_training_ends_with_the_weights_of_an_unbroken_one(tmp_path):
    unbroken = run()
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(InterruptError):
        run(interrupted_at(31), Runtime("test", checkpoint=path))
    assert path.exists()
    resumed = run(runtime=Runtime("test", checkpoint=path, resume=True))
    for group in ("state", "history"):
        for name, array in unbroken[group].items():
            np.testing.assert_array_equal(array, resumed[group][name], err_msg=name)


def test_a_finished_training_leaves_no_checkpoint(tmp_path):
    run(runtime=Runtime("test", checkpoint=tmp_path / "checkpoint.safetensors"))
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_that_cannot_be_written_cost_one_warning_and_not_the_training(tmp_path):
    (tmp_path / "taken").write_text("mine")
    runtime = Runtime("test", checkpoint=tmp_path / "taken" / "checkpoint.safetensors")
    with pytest.warns(SkmimoodWarning, match="No checkpoint can be written to 'taken'") as warned:
        trained = run(runtime=runtime)
    assert len(warned) == 1
    np.testing.assert_array_equal(trained["state"]["weight"], run()["state"]["weight"])


def test_losses_that_are_read_every_few_steps_train_the_same(monkeypatch):
    from skmimood.training import loop

    expected, init = run(once_nan(20)), loop._Trainer.__init__

    def with_rare_checks(self, *arguments):
        init(self, *arguments)
        self.steps_between_checks = 4

    monkeypatch.setattr(loop._Trainer, "__init__", with_rare_checks)
    found = run(once_nan(20))
    np.testing.assert_array_equal(found["history"]["loss"], expected["history"]["loss"])
    np.testing.assert_array_equal(found["state"]["weight"], expected["state"]["weight"])


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        run(runtime=Runtime("test", checkpoint=path, resume=True))


def test_bad_input_46_a_single_nan_goes_back_and_lowers_the_learning_rate():
    trained = run(once_nan(20))
    assert np.isfinite(trained["history"]["loss"]).all()
    assert len(trained["history"]["loss"]) == 60
    assert np.isfinite(trained["state"]["weight"]).all()


def test_a_nan_in_validation_goes_back_too():
    calls = iter(range(10**6))

    def once_nan(network, indices, streams, training):
        loss = distance_to_line(network, indices, streams, training)
        return loss * float("nan") if not training and next(calls) == 20 else loss

    trained = run(once_nan)
    assert len(trained["history"]["loss"]) == 60
    assert np.isfinite(trained["history"]["validation_loss"]).all()


def test_a_checkpoint_between_validations_resumes_to_the_same_weights(tmp_path, monkeypatch):
    from skmimood.training import loop

    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(InterruptError):
        run(interrupted_at(32), Runtime("test", checkpoint=path))
    resumed = run(runtime=Runtime("test", checkpoint=path, resume=True))
    np.testing.assert_array_equal(run()["state"]["weight"], resumed["state"]["weight"])


def test_bad_input_46_a_loss_that_stays_nan_is_an_error_with_a_remedy():
    def always_nan(network, indices, streams, training):
        return distance_to_line(network, indices, streams, training) * float("nan")

    with pytest.raises(TrainingDivergedError, match="lower learning_rate"):
        run(always_nan)


def test_an_interrupted_fit_resumes_to_the_same_tokenizer(tmp_path, healthy, monkeypatch):
    parameters = {
        "n_codes": 16, "code_dim": 4, "channels": 4, "channel_multipliers": (1,), "max_iter": 40, "random_state": 0,
    }  # fmt: skip
    unbroken = build(VQTokenizer, **parameters).fit(healthy)
    broken = build(VQTokenizer, **parameters, checkpoint_dir=str(tmp_path), resume=True)
    from skmimood.training import loop

    original, calls = loop._Trainer._step, iter(range(10**6))

    def step(self):
        if next(calls) == 25:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(loop._Trainer, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(healthy)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(loop._Trainer, "_step", original)
    broken.fit(healthy)
    for name, array in unbroken.state_.items():
        np.testing.assert_array_equal(array, broken.state_[name])


def test_a_checkpoint_is_not_taken_for_another_training(tmp_path, healthy, monkeypatch):
    parameters = {"n_codes": 16, "code_dim": 4, "channels": 4, "channel_multipliers": (1,), "random_state": 0}
    from skmimood.training import loop

    original, calls = loop._Trainer._step, iter(range(10**6))

    def step(self):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(loop._Trainer, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        build(VQTokenizer, **parameters, max_iter=10, checkpoint_dir=str(tmp_path)).fit(healthy)
    monkeypatch.setattr(loop._Trainer, "_step", original)
    other = build(VQTokenizer, **{**parameters, "random_state": 1}, max_iter=10)
    fresh = other.fit(healthy).state_
    resumed = (
        other.set_params(training__checkpoint_dir=str(tmp_path), training__resume=True).fit(healthy).state_
    )
    np.testing.assert_array_equal(fresh["to_image.0.weight"], resumed["to_image.0.weight"])


def test_a_checkpoint_of_other_code_is_told_of_and_kept(tmp_path, healthy, monkeypatch):
    from skmimood.training import estimator, loop

    parameters = {"n_codes": 16, "code_dim": 4, "channels": 4, "channel_multipliers": (1,), "random_state": 0}
    tokenizer = build(VQTokenizer, **parameters, max_iter=10, checkpoint_dir=str(tmp_path), resume=True)

    def killed(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop._Trainer, "_is_stale", killed)
        patch.setattr(loop._Trainer, "_resume", loop._Trainer._save_checkpoint)
        with pytest.raises(KeyboardInterrupt):
            tokenizer.fit(healthy)
    (before,) = tmp_path.iterdir()
    monkeypatch.setattr(estimator, "code_digest", lambda module: "0" * 16)
    with pytest.warns(
        SkmimoodWarning, match=rf"^{before.name} was written by another version.*from the start"
    ):
        tokenizer.fit(healthy)
    assert list(tmp_path.iterdir()) == [before]


def test_verbose_shows_a_progress_bar(capsys):
    run(runtime=Runtime("codebook", verbose=True))
    assert "codebook" in capsys.readouterr().err
