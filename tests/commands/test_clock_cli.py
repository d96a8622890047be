"""The clock on the command line: its numbers are those of ``timeline``; figures, fleets, calibration, and the real run."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from socket import gethostname

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from worlds import gloo_on_the_loopback

from pflbench.cli import main
from pflbench.clock import replay
from pflbench.clock.fleet import FLEETS, build_fleet, load_fleet
from pflbench.clock.timeline import PROTOCOLS, gain_bound
from pflbench.core.streams import stream
from pflbench.engine import engine
from pflbench.experiment.build import build
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.experiment.run import run
from pflbench.experiment.store import load

ROOT = Path(__file__).parents[2]
SMALL = {"clients": 4, "participation": 1.0, "rounds": 6, "epochs": 1, "eval_every": 2}
OVERLAPS = {"fedavg": False, "fedrep": False, "pfedme": False, "local_only": False, "ditto": True, "spectral": True}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Method -> the file of its result."""
    machine = Machine(device="cpu", results=tmp_path_factory.mktemp("results"))
    return {name: run(Experiment.of({**SMALL, "method": name}), machine).path for name in OVERLAPS}


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def last_line(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def timeline(results, *arguments, methods=OVERLAPS):
    addresses = [results[name].stem for name in methods]
    return call("timeline", *addresses, "--results", results["fedavg"].parent.parent, *arguments)


def refused(result, text):
    assert result.exit_code == 2, result.output
    assert text in result.stderr
    assert "Traceback" not in result.output


# pflbench timeline


def test_only_methods_with_a_personal_stage_gain_and_the_others_gain_exactly_nothing(results):
    found = last_line(timeline(results, "--fleet", "homogeneous", "--json"))
    assert (found["fleet"], found["default_fleet"], found["files"]) == ("homogeneous", False, [])
    gains = {row["method"]: row["gain"] for row in found["rows"] if row["protocol"] == "wait_free"}
    assert {name: value > 1 for name, value in gains.items()} == OVERLAPS
    assert all(value == 1.0 or OVERLAPS[name] for name, value in gains.items())
    assert all(value <= 2 for value in gains.values())
    assert all(row["gain"] == 1 for row in found["rows"] if row["protocol"] == "compute_and_wait")


def test_total_time_and_bytes_by_hand(results):
    """Fleet homogeneous: 0.1 s per batch, 20 Mbit/s, 50 ms a message, 0.1 s an aggregation; all four in every round."""
    record = load(results["spectral"])
    numbers, batches = 64 * 64 + 64 + 64 * 10 + 10, max(-(-n // 10) for n in record["clients"]["train"])
    message = 0.05 + 32 * numbers / 20e6
    slow, fast = last_line(timeline(results, "--fleet", "homogeneous", "--json", methods=["spectral"]))["rows"]
    t_g = t_p = 0.1 * batches  # one pass each, at the client with the most batches
    assert slow["total_s"] == pytest.approx(6 * (message + t_g + t_p + message + 0.1))
    assert fast["total_s"] == pytest.approx(message + 6 * (t_g + t_p))  # T_p > T_c: the network is in its shadow
    assert slow["down_bytes"] == slow["up_bytes"] == fast["up_bytes"] == 6 * 4 * 4 * numbers


def test_every_method_meets_the_same_fleet_and_another_seed_another(results):
    found = [last_line(timeline(results, "--fleet", "lte", "--seed", seed, "--json"))["rows"] for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    drawn = build_fleet(load_fleet("lte"), 4, stream(0, "fleet", "lte"))
    both = replay.replay(load(results["ditto"]), "lte", seed=0)
    for each in both.values():
        first = each.rounds[0]
        assert set(first.clients) <= set(range(4))
    assert drawn.name == "lte"


def test_block_client_is_never_slower(results):
    rounds, alone = (
        last_line(timeline(results, "--fleet", "lte", "--block", block, "--protocol", "wait_free", "--json"))["rows"]
        for block in ("round", "client")
    )
    assert all(mine["total_s"] <= theirs["total_s"] for mine, theirs in zip(alone, rounds, strict=True))
    assert {row["protocol"] for row in alone} == {"wait_free"}


def test_the_table_names_the_default_fleet(results):
    result = timeline(results)
    assert result.exit_code == 0, result.output
    assert "fleet lte (the default; --fleet names another)" in result.stdout
    assert "Spectral" in result.stdout
    assert last_line(timeline(results, "--json"))["default_fleet"]


def test_figures_and_exactly_what_they_show(results, tmp_path):
    out = tmp_path / "clock"
    methods = ["fedavg", "spectral"]
    found = last_line(timeline(results, "--fleet", "lognormal", "--out", out, "--json", methods=methods))
    assert all(Path(path).is_file() for path in found["files"])
    wanted = {"times", "curves", *(f"gantt-{results[name].stem}" for name in methods)}
    assert {Path(path).stem for path in found["files"]} == wanted
    for path in map(Path, found["files"]):
        if path.suffix == ".pdf":
            assert b"/FontFile2" in path.read_bytes()
            assert b"/Type3" not in path.read_bytes()
    times = pd.read_csv(out / "times.csv")
    assert times["total_s"].tolist() == pytest.approx([row["total_s"] for row in found["rows"]])
    curves = pd.read_csv(out / "curves.csv")
    assert curves.groupby(["method", "model"]).size().to_dict() == {
        ("fedavg", "GM"): 6,
        ("spectral", "GM"): 6,
        ("spectral", "PM"): 6,
    }
    record = load(results["spectral"])
    ends = replay.replay(record, "lognormal", seed=0)["wait_free"].ends
    mine = curves.query("method == 'spectral' and model == 'PM' and protocol == 'wait_free'")
    assert mine["seconds"].tolist() == pytest.approx([ends[r - 1] for r in (2, 4, 6)])
    assert mine["accuracy"].tolist() == pytest.approx(
        [sum(row) / sum(record["clients"]["test"]) for row in record["curve"]["personal"]]
    )


def test_bad_input_is_one_clear_line(results, tmp_path):
    refused(timeline(results, "--fleet", "ltee"), "did you mean lte?")
    refused(call("timeline", "0123abcd", "--results", tmp_path), "no such result")
    refused(timeline(results, "--fleet", tmp_path / "none.yaml"), "cannot be read")
    refused(call("timeline"), "Missing argument")
    (tmp_path / "file").write_text("")
    refused(timeline(results, "--out", tmp_path / "file" / "x"), "out = ")


def test_fleets_are_listed_with_their_sources():
    listed = call("list", "fleets")
    assert all(name in listed.stdout for name in FLEETS.names())
    one = call("list", "fleets", "wifi").stdout
    assert "FLASH" in one
    assert all(field in one for field in load_fleet("wifi") if field not in ("name", "about"))
    refused(call("list", "fleets", "wify"), "did you mean wifi?")


# pflbench calibrate


def test_a_calibrated_fleet_is_a_fleet(results, tmp_path):
    path = tmp_path / "mine.yaml"
    quick = ("--batches", 3, "--repeats", 3, "--epochs", 1)
    found = last_line(call("calibrate", *quick, "--like", "wifi", "--out", path, "--json"))
    text = path.read_text()
    assert yaml.safe_load(text) == found["fleet"]
    assert gethostname() not in text
    fleet = build_fleet(load_fleet(str(path)), 3, np.random.default_rng(0))
    assert fleet.name == "mine"
    wifi = load_fleet("wifi")
    for stage in ("contribute", "personalise"):
        seconds = found["seconds_per_batch"][stage]
        assert 0 < seconds["low"] <= seconds["median"] <= seconds["high"]
        assert found["fleet"][f"{stage}_s"]["value"] == pytest.approx(seconds["median"], rel=1e-3)
        assert f"{stage} stage of spectral, mlp, digits, batches of 10" in found["fleet"][f"{stage}_s"]["source"]
    assert {k: v for k, v in found["fleet"].items() if k not in ("about", "contribute_s", "personalise_s")} == {
        k: v for k, v in wifi.items() if k not in ("name", "about", "contribute_s", "personalise_s")
    }
    assert last_line(timeline(results, "--fleet", path, "--json"))["fleet"] == "mine"


def test_a_stage_without_work_costs_nothing():
    found = last_line(call("calibrate", "--method", "fedavg", "--batches", 2, "--repeats", 3, "--json"))
    assert found["fleet"]["personalise_s"]["value"] == 0
    assert found["fleet"]["contribute_s"]["value"] > 0


def test_calibrate_refuses_what_it_cannot_do(tmp_path):
    refused(call("calibrate", "--out", tmp_path / "mine.txt"), "ends in .yaml")
    refused(call("calibrate", "--batches", 10_000), "full batches of 10")
    refused(call("calibrate", "--model", "cnn"), "needs images of 16x16")
    refused(call("calibrate", "--like", "none"), "fleet = none")


# pflbench live


@pytest.mark.skipif(not gloo_on_the_loopback(), reason="needs gloo and a loopback interface")
def test_a_real_run_from_the_command_line(tmp_path):
    size = ("--clients", 2, "--rounds", 2, "--epochs", 1, "--batch-ms", 1, "--up-mbps", 4, "--down-mbps", 8)
    report = last_line(call("live", "--method", "spectral", *size, "--out", tmp_path, "--json"))
    assert report["learned"] == dict.fromkeys(PROTOCOLS, 0.0)
    assert report["lost"] == {}
    assert set(report["protocols"]) == set(PROTOCOLS)
    for each in report["protocols"].values():
        assert each["measured_s"] >= each["set_s"] - 1e-6  # emulation only ever waits
        assert each["ratio"] == pytest.approx(each["measured_s"] / each["predicted_s"])
    assert report["gain"] == pytest.approx(
        report["protocols"]["compute_and_wait"]["measured_s"] / report["protocols"]["wait_free"]["measured_s"]
    )
    assert report["bytes"] == {"up": 2 * 2 * 4 * 4810, "down": 2 * 2 * 4 * 4810}
    assert [Path(path).name for path in report["files"]] == ["live-gantt.pdf", "live-gantt.png"]


def test_live_refuses_before_it_starts_anything():
    refused(call("live", "--method", "spectra"), "did you mean spectral?")
    refused(call("live"), "method = missing")
    refused(call("live", "--method", "spectral", "--up-mbps", 0), "--up-mbps")


# Claim C3


@pytest.fixture(scope="module")
def figure():
    spec = spec_from_file_location("gain_figure", ROOT / "paper_figures" / "gain" / "figure.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@given(st.floats(0, 4), st.floats(0.01, 4))
def test_the_region_of_a_gain_of_one_and_a_half(t_g, t_p):
    """With T_c = 1: (T_g + 1) / 2 <= T_p <= 2 - T_g, so nowhere if T_g > 1."""
    inside = min(t_p - (t_g + 1) / 2, 2 - t_g - t_p)
    if abs(inside) > 1e-9:
        assert (gain_bound(t_g, t_p, 1.0) > 1.5) == (inside > 0)
    if t_g >= t_p:
        assert gain_bound(t_g, t_p, 1.0) <= 1.5


def test_the_figure_takes_the_costs_of_the_default_experiment(figure):
    """Those that a run records, worked out without training."""
    resolved = resolve(Experiment.of({"method": "spectral"}))
    world, _ = build(resolved, Machine(), torch.device("cpu"))
    experiment = resolved.experiment
    work, ours = world.method.work(world.task), figure.record(4810, 2, 2)
    assert (work.contribute, work.personalise, experiment.rounds) == (2, 2, len(ours["cohorts"]))
    assert ours["cohorts"] == [engine.cohort_of(world, r).tolist() for r in range(experiment.rounds)]
    batches = [[-(-len(world.train[k]) // experiment.batch_size) for k in cohort] for cohort in ours["cohorts"]]
    assert ours["costs"]["contribute"] == ours["costs"]["personalise"] == [[2 * n for n in row] for row in batches]
    assert sum(leaf.numel() for leaf in world.task.start.values()) == ours["costs"]["up"] == figure.MODELS["MLP"]


def test_the_shares_count_cells(figure):
    rows = [
        {"panel": "fleet", "series": s, "passes": "2 + 2", "block": b, "numbers": n, "seed": 0, "gain": g}
        for s, b, n, g in [
            ("a", "round", 10, 1.6),
            ("a", "client", 10, 1.2),
            ("b", "round", 10, 1.4),
            ("b", "client", 10, 1.5),
        ]
    ]
    frame = pd.DataFrame([*rows, {**rows[0], "panel": "theory", "gain": 2.0}])
    found = figure.shares(frame)
    assert (found["cells"], found["share_of_cells_at_least_1.5"]) == (4, 0.5)
    assert found["by_block_and_passes"] == {"round": {"2 + 2": 0.5}, "client": {"2 + 2": 0.5}}
    assert [(row["series"], row["gain"]) for row in found["best_per_fleet"]] == [("a", 1.6), ("b", 1.5)]
