"""``python -m benchmarks speed``, ``scaling``, and what ``report`` makes of their results."""

import argparse
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import records
from benchmarks.commands import report, scaling, speed
from benchmarks.commands.options import listed
from benchmarks.report import figures, headline
from benchmarks.report import speed as speed_report
from benchmarks.timing import floor, groups, networks, stopwatch
from benchmarks.timing.groups import Session
from benchmarks.timing.networks import phantoms
from skmimood.exceptions import InputError
from skmimood.networks.transformer import TokenTransformer
from skmimood.networks.vqvae import VQVAE
from skmimood.networks.weights import new_network
from skmimood.pipeline import PRESETS

CPU = torch.device("cpu")
TRANSFORMER = {
    "n_inputs": 17, "n_outputs": 16, "grid": [3, 5], "depth": 3, "width": 8, "n_heads": 2, "mlp_ratio": 3.0,
    "drop_path": 0.0,
}  # fmt: skip
AUTOENCODER = {
    "patch_size": 2, "channels": 8, "channel_multipliers": [1, 2, 2], "n_res_blocks": 2, "n_codes": 16, "code_dim": 4,
    "codebook_decay": 0.9, "restart_below": 1.0,
}  # fmt: skip
COMPLETE = {
    "name", "seconds", "per", "ratio_to", "ratio", "peak_memory_bytes", "device", "threads", "preset", "precision",
    "commit",
}  # fmt: skip


@pytest.fixture(scope="module")
def session():
    """Return a session of preset tiny, with networks that are smaller still."""
    found = Session(
        "tiny", CPU, 32, images=2, grid_images=1, repeats=1, patience=0.0, positions=2, train_steps=2,
        volume=(32, 32, 4),
    )  # fmt: skip
    found.machine = floor.Machine(flops=1e12, bandwidth=1e11, itemsize=2)  # measuring it takes a second
    with pytest.MonkeyPatch.context() as smaller:
        smaller.setitem(PRESETS["tiny"]["tokenizer"], "channels", 8)
        for step in ("detector", "inpainter"):
            smaller.setitem(PRESETS["tiny"][step], "depth", 2)
            smaller.setitem(PRESETS["tiny"][step], "width", 32)
        assert list(found.mimood.named_steps) == ["tokenizer", "detector", "inpainter"]  # built here
    return found


def by_name(records):
    return {record["name"]: record for record in records}


def test_restorations_are_recorded_with_the_ratios_of_their_seconds(session):
    found = by_name(groups.restorations(session))
    assert list(found) == [
        "mimood_r4_t8", "mimood_whole_grid", "mimood_reference", "mimood_default", "ar_r4_uncached", "ar_r4_cached",
        "token_critic_r4",
    ]  # fmt: skip
    ours = found["mimood_r4_t8"]
    assert ours["ratio"] is ours["ratio_to"] is None
    assert ours["floor_seconds"] > 0
    assert found["mimood_reference"]["precision"] == "float32"
    for record in found.values():
        assert record.keys() >= COMPLETE | {"images", "masked_share", "tokens"}
        if record is not ours:
            assert record["ratio"] == record["seconds"] / found[record["ratio_to"]]["seconds"]
    assert found["ar_r4_uncached"]["measured_share"] == 2 / 64
    assert json.loads(json.dumps(found)) == found


def test_a_grid_is_recorded_and_leaves_the_pipeline_as_it_was(session, monkeypatch):
    for name, values in (("N_STEPS", (1, 2)), ("N_RESTORATIONS", (1,)), ("SHARES", (0.05,))):
        monkeypatch.setattr(groups, name, values)
    found = by_name(groups.grid(session))
    assert found["grid_80_separate"]["ratio_to"] == "grid_80_path"
    assert found["grid_80_path"]["ratio_to"] == "grid_1"
    inpainter = session.mimood["inpainter"]
    assert (inpainter.n_steps, inpainter.n_restorations) == (8, 4)


def test_training_steps_are_those_of_the_fit_and_end_it(session):
    found = by_name(groups.training(session))
    for name in ("train_tokenizer_step", "train_transformer_step"):
        record = found[name]
        assert len(record["runs"]) == 2
        assert record["images_per_second"] == record["batch_size"] / record["seconds"]
        assert 0 < record["share_of_matmul"] < 10


def test_a_volume_tells_the_peak_of_its_process(session):
    assert groups.score_volume(session).peak_memory > 1e8


def test_the_floor_of_a_gpu_needs_none(session):
    (found,) = groups.on_paper(session)
    assert found["device"] == "NVIDIA H200, on paper"
    assert 0 < found["seconds"] < 1e-3
    assert found.keys() >= COMPLETE


def test_a_command_prints_and_keeps_the_records_of_other_groups(tmp_path, monkeypatch, capsys):
    def group(name):
        timing = stopwatch.Timing([1.0, 3.0, 2.0])
        return lambda session: [session.record(name, timing, "call", precision="none", image_size=1)]

    monkeypatch.setattr(speed, "GROUPS", {"first": group("a"), "second": group("b")})
    monkeypatch.setattr(Session, "common", {})
    parser = argparse.ArgumentParser()
    speed.add_arguments(parser)
    for asked in ("all", "second"):
        options = ["--results", str(tmp_path), "--groups", asked, "--device", "cpu"]
        speed.run(parser.parse_args(options))
    written = json.loads((tmp_path / "speed_tiny_cpu.json").read_text())
    assert [(record["name"], record["seconds"]) for record in written] == [("a", 2.0), ("b", 2.0)]
    assert "`b` | 2 | call" in capsys.readouterr().out


def test_an_unknown_group_is_refused():
    assert listed("import, grid", groups.GROUPS, "group") == ["grid", "import"]
    with pytest.raises(InputError, match="no group 'gird'"):
        listed("gird", groups.GROUPS, "group")


def test_a_quick_run_leaves_out_growth_and_writes_nothing(tmp_path, monkeypatch):
    ran = []
    groups_of_speed = {
        name: lambda session, name=name: ran.append(name) or [] for name in ("import", "growth")
    }
    monkeypatch.setattr(speed, "GROUPS", groups_of_speed)
    parser = argparse.ArgumentParser()
    speed.add_arguments(parser)
    speed.run(parser.parse_args(["--quick", "--results", str(tmp_path), "--device", "cpu"]))
    assert ran == ["import"]
    assert not any(tmp_path.iterdir())


def test_subjects_run_in_turn_and_only_the_slow_go_without_warm_up(monkeypatch):
    now, order = [0.0], []

    def subject(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds

        return run

    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    found = stopwatch.interleave(
        {"quick": subject("quick", 1.0), "slow": subject("slow", 5.0)}, CPU, repeats=2, patience=4.0
    )
    assert order == ["quick", "slow", "quick", "quick"]
    assert (found["quick"].runs, found["slow"].runs) == ([1.0, 1.0], [5.0])


def test_what_was_left_out_is_added_to_the_seconds(monkeypatch):
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: 0.0)
    seconds, _ = stopwatch.measure(lambda: 7.0, CPU)
    assert seconds == 7.0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a part of a run")
def test_peak_memory_is_what_a_run_grows_by():
    _, memory = stopwatch.measure(lambda: np.ones(2**24).sum() * 0, CPU)
    assert 0.9 * 2**27 < memory < 1.5 * 2**27


def test_the_share_of_masked_tokens_is_the_same_in_every_slice_and_step(session):
    pipeline = session.mimood
    scans = pipeline[:-1].transform(phantoms(2, 32))
    restored = torch.from_numpy(pipeline["inpainter"].restore(scans)[:, 0])
    for tokens in (torch.from_numpy(scans.tokens), restored):
        with torch.inference_mode():
            masked = scans.detector.score_tensor(tokens) > scans.detector.threshold
        assert set(masked.flatten(1).sum(1).tolist()) == {round(0.05 * 64)}


def test_some_of_the_passes_tell_the_time_of_all(session, monkeypatch):
    _, pipeline = networks.rivals(session.mimood, "tiny", "cpu", 32, 0.05)
    images = phantoms(2, 32)
    whole = pipeline.set_params(restorer__key_value_cache=False).decision_function(images)
    kept = []
    spy = SimpleNamespace(
        set_params=pipeline.set_params, decision_function=lambda X: kept.append(pipeline.decision_function(X))
    )
    assert networks.restore_uncached(spy, images, 1, CPU) == 0
    assert np.array_equal(kept[0], whole)
    ticks = iter(range(1000))
    monkeypatch.setattr(networks, "clock", lambda _: next(ticks))
    left_out = networks.restore_uncached(pipeline, images, 16, CPU)
    assert left_out == next(ticks) / 2 * 15  # a second a pass, and 15 times as many left out
    assert pipeline["restorer"].key_value_cache


def test_operations_of_a_transformer_are_those_that_torch_counts():
    network = new_network(TokenTransformer, TRANSFORMER, torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(4, 3, 5, dtype=torch.long))
    work = floor.transformer_work(TRANSFORMER, 4, 2)
    assert work.flops == counter.get_total_flops()
    assert work.bytes > 2 * sum(parameter.numel() for parameter in network.parameters())


def test_fewer_wanted_positions_need_fewer_operations_but_not_none():
    whole, part = (floor.transformer_work(TRANSFORMER, 4, 2, share=share).flops for share in (1.0, 0.2))
    assert 2 / 3 * whole < part < whole


def test_tokens_that_are_left_out_cost_nothing():
    whole, half = (floor.transformer_work(TRANSFORMER, 4, 2, kept=kept).flops for kept in (1.0, 0.5))
    assert half < 0.5 * whole


def test_the_share_of_tokens_on_the_head_is_that_of_the_slices():
    images = np.zeros((2, 32, 32), np.float32)
    images[0, 8:24, 8:24], images[1, 4:28, 4:28] = 0.5, 0.5
    assert networks.share_kept(images, 4) == pytest.approx((36 + 64) / 128)


def test_operations_of_encoder_and_decoder_are_those_that_torch_counts():
    network = new_network(VQVAE, AUTOENCODER, torch.Generator().manual_seed(0))
    tokens = torch.zeros(2, 3, 4, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.decode(tokens)
    assert floor.decoder_work(AUTOENCODER, (3, 4), 2, 4).flops == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.encoder(torch.zeros(2, 1, 24, 32))
    assert floor.encoder_work(AUTOENCODER, (3, 4), 2, 4).flops == counter.get_total_flops()


def test_the_floor_is_the_longer_of_computing_and_moving():
    machine = floor.Machine(flops=10.0, bandwidth=100.0, itemsize=2)
    assert machine.seconds(floor.Work(flops=50.0, bytes=100.0)) == 5.0
    assert machine.seconds(floor.Work(flops=5.0, bytes=1000.0)) == 10.0


def test_a_restoration_is_as_many_passes_as_its_steps(session, monkeypatch):
    pipeline = session.mimood
    passes = floor.restoration_passes(pipeline, 2, share=0.05, itemsize=2)
    assert len(passes) == 1 + 1 + 7 + 8 + 1
    assert passes[2].flops == 4 * passes[1].flops  # the first is shared by the R = 4 restorations
    monkeypatch.setattr(floor, "_SECONDS_OF_A_RATE", 0.01)
    monkeypatch.setattr(floor, "_BANDWIDTH_BYTES", 2**20)
    machine = floor.measure_machine(CPU, torch.float32, side=128)
    assert floor.restoration_floor(pipeline, 2, machine, share=0.05) > 0


def test_a_power_law_is_found():
    values = np.array([1.0, 2.0, 8.0])
    assert figures.exponent(values, 3 * values**1.5) == pytest.approx(1.5)
    assert np.isnan(figures.exponent([1.0], [2.0]))


def test_growth_varies_one_thing_at_a_time_and_ends_with_patience(session, monkeypatch):
    series = {"images": (1, 2), "T": (1, 2), "R": (1,), "image size": (32,), "masked share": (0.1,)}
    monkeypatch.setattr(groups, "SERIES", series)
    monkeypatch.setattr(networks, "published", lambda *_: session.mimood)
    points = list(groups.growth(session))
    assert [(point["series"], point["value"]) for point in points] == [
        ("images", 1), ("T", 1), ("R", 1), ("image size", 32), ("masked share", 0.1),
    ]  # fmt: skip
    assert all(point["seconds"] > point["floor_seconds"] > 0 for point in points)


def test_a_cohort_takes_the_start_and_then_scan_after_scan():
    measured = {"workers": 2, "start_seconds": 100.0, "seconds_per_scan": 36.0}
    assert speed_report.cohort_hours(measured, 1, 10_000) == (100 + 5000 * 36) / 3600
    assert speed_report.cohort_hours(measured, 64, 10_000) == (100 + 79 * 36) / 3600


def test_the_start_of_workers_is_told_from_their_work(tmp_path):
    def score(folder):
        return 10.0 + 2.0 * len(list(folder.glob("*.nii.gz"))) / 2

    told = scaling.measure(score, 2, 3, (8, 8, 4), tmp_path)
    assert told == {"workers": 2, "scans": 6, "seconds": 16.0, "seconds_per_scan": 2.0, "start_seconds": 10.0}


@pytest.fixture
def results(tmp_path):
    """Write small results as the commands do."""
    common = {
        "preset": "small", "image_size": 128, "device": "CPU (x86_64)", "threads": 2, "commit": "abc1234",
        "precision": "bfloat16", "ratio_to": None, "ratio": None, "peak_memory_bytes": 2e9,
    }  # fmt: skip
    points = [
        {"name": f"grow_{series}", "series": series, "value": value, "seconds": 2.0 * value, "floor_seconds": value**2,
         "per": "8 images", **common}
        for series in ("images", "T") for value in (4, 8)
    ]  # fmt: skip
    named = [
        {"name": "mimood_r4_t8", "seconds": 2.0, "per": "32 images", "floor_seconds": 0.5, "images": 32, "tokens": 400,
         **common},
        {"name": "ar_r4_uncached", "seconds": 50.0, "per": "32 images", "measured_share": 0.02, **common,
         "ratio_to": "mimood_r4_t8", "ratio": 25.0},
    ]  # fmt: skip
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "speed_small_cpu.json").write_text(json.dumps([*named, *points]))
    measured = {"workers": 1, "scans": 4, "seconds": 50.0, "seconds_per_scan": 10.0, "start_seconds": 9.0}
    twice = {**measured, "workers": 2, "scans": 8, "seconds_per_scan": 12.0}
    cohort = {
        "preset": "tiny",
        "shape": [8, 8, 4],
        "workers": [measured, twice],
        "device": "CPU",
        "commit": "abc",
    }
    (folder / "scaling_tiny.json").write_text(json.dumps(cohort))
    row = {
        "dataset": "lgg", "preset": "tiny", "seed": 0, "method": "mimood", "variant": "n_steps 2", "split": "val",
        "n_restorations": 4, "n_steps": 2, "precision": "bfloat16", "is_default": True, "ap": 0.5, "best_dice": 0.51,
        "seconds_per_32": 2.0, "device": "CPU", "threads": 1, "commit": "abc1234",
    }  # fmt: skip
    rows = [
        row, row | {"variant": "worse", "is_default": False, "seconds_per_32": 3.0, "ap": 0.4},
        row | {"method": "ar", "variant": "n_restorations 4", "seconds_per_32": 5.0, "ap": 0.4, "n_steps": None},
        row | {"variant": "float32", "is_default": False, "best_dice": 0.513},
        row | {"variant": "bfloat16", "is_default": False},
    ]  # fmt: skip
    records.replace_rows(folder / "lgg_pareto.csv", rows, ("dataset",))
    return folder


def test_the_report_tells_ratios_exponents_the_front_and_the_cohort(results, tmp_path):
    text = speed_report.render(results, tmp_path)
    assert (
        "| `ar_r4_uncached` | 50 | 32 images | 25 x mimood_r4_t8 | 2.00 GB | 2.0% of the passes measured |"
        in text
    )
    assert "| images | 4 to 8 | 1.00 | 2.00 | 2.00 GB to 2.00 GB |" in text
    assert "| skmimood | n_steps 2, as it comes | 2 | 0.500 | yes |" in text
    assert "worse" not in text
    assert "| skmimood | val | 0.5130 | 0.5100 | -0.0030 | 2 | 2 |" in text
    assert "| 2 | 8 | 50.0 | 12.00 | 600 | 1.67 x |" in text
    for name in ("speed_small_cpu-growth.png", "lgg-tiny-cpu-0-pareto.png"):
        assert f"figures/{name}" in text
        assert (tmp_path / "figures" / name).stat().st_size > 1000


def test_the_headline_tells_what_the_others_take(results):
    text = headline.headline(results)
    assert "| small, 400 tokens, CPU (x86_64), bfloat16 | 2 s per 32 slices |  |  | 25 x |  |  |" in text


def test_without_results_the_report_of_speed_says_so(tmp_path):
    assert speed_report.render(tmp_path, tmp_path) == "No results yet."


def test_the_benchmarks_own_page_has_a_place_for_it():
    text = report.README.read_text(encoding="utf-8")
    assert text.count("<!-- speed:start -->") == text.count("<!-- speed:end -->") == 1
