"""Trace, verify, plan; the workflow."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from studies import FIGURES, ROOT
from worlds import world

from pflbench.baselines import METHODS
from pflbench.cli import main
from pflbench.engine import engine, evaluation
from pflbench.experiment.machine import Machine
from pflbench.experiment.record import sealed
from pflbench.study.forecast import _load, _speed, forecast
from pflbench.study.workload import Workload


def test_trace_names_the_runs_of_a_cell(copy):
    outcome = CliRunner().invoke(main, ["trace", "one", "--scale", "tiny", "--cell", "fedavg,even", "--json"])
    rows = json.loads(outcome.output)["runs"]
    assert [row["seed"] for row in rows] == [0, 1, 2]
    assert all(Path(row["path"]).exists() and row["experiment"]["partition"]["name"] == "iid" for row in rows)
    outcome = CliRunner().invoke(main, ["trace", "one", "--scale", "tiny", "--cell", "fedavg,digits"])
    assert outcome.exit_code == 0
    assert "6 runs" in outcome.output
    assert CliRunner().invoke(main, ["trace", "one", "--scale", "tiny", "--cell", "fedrep,even"]).exit_code == 2


def test_verify_says_identical_or_what_differs(copy):
    path = next(Path("results/fedavg").glob("*.json"))
    outcome = CliRunner().invoke(main, ["verify", path.stem])
    assert (outcome.exit_code, "identical" in outcome.output) == (0, True)
    record = json.loads(path.read_text())
    record["curve"]["official"][-1] += 1
    path.write_text(json.dumps(record))
    outcome = CliRunner().invoke(main, ["verify", path.stem])
    assert outcome.exit_code == 2
    assert "its checksum differs" in outcome.stderr
    path.write_text(json.dumps(sealed(record)))  # by someone who knows how
    outcome = CliRunner().invoke(main, ["verify", path.stem])
    assert outcome.exit_code == 1
    assert "curve.official[1]" in outcome.output
    assert CliRunner().invoke(main, ["verify"]).exit_code == 2


def test_plan_counts_what_is_there_and_predicts_the_rest(copy):
    plan, machine = Workload.of("tiny"), Machine(device="cpu", results=Path("results"))
    nothing = forecast(plan, machine, rounds=1)
    assert nothing.figures["all"].seconds == 0
    assert nothing.memory == {}
    for path in Path("results/fedavg").glob("*.json"):
        path.unlink()
    told = []
    bill = forecast(plan, machine, rounds=1, watch=lambda done, total: told.append((done, total)))
    found = bill.figures
    assert told == [(number, 6) for number in range(1, 7)]
    assert (found["all"].runs, found["all"].cached) == (21, 15)
    assert (found["two"].runs, found["two"].cached) == (6, 6)
    assert found["one"].seconds == found["all"].seconds > 0
    assert found["all"].disk > 0
    (held,) = bill.memory.values()
    assert held["data"].bytes == 1797 * (64 + 8)
    assert bill.wall_s(3, 2, 1) == pytest.approx(found["all"].seconds + 3 * bill.start_s + 2 * bill.draw_s)
    assert bill.wall_s(3, 2, 2) == pytest.approx(2 * (found["all"].seconds / 3 + bill.start_s) + bill.draw_s)
    shown = CliRunner().invoke(main, ["plan", "--scale", "tiny", "--device", "cpu"])
    assert shown.exit_code == 0, shown.output
    assert "client states" in shown.output


def test_a_forecast_by_sample_weighs_what_it_left_out(monkeypatch):
    """Costs counted, not timed: 10 of 40 clients with a few batches each stand for all that one round and one
    evaluation of the whole world compute, fine-tuning included."""
    whole = world(METHODS.get("fedavg_ft")(), engine="loop", sizes=(90, 30, 60, 10) * 10, cohort_size=8)
    clock, step = [0.0], 1.0

    def stage(world, name, function, w, c, cohort, round, epochs):
        clock[0] += step * epochs * sum(-(-len(world.train[k]) // world.batch_size) for k in cohort)
        return engine_stage(world, name, function, w, c, cohort, round, 0)

    engine_stage = engine.stage
    monkeypatch.setattr(engine, "stage", stage)
    monkeypatch.setattr(evaluation, "stage", stage)
    monkeypatch.setattr("pflbench.study.forecast.time.monotonic", lambda: clock[0])
    speed, trains = _speed(whole, 3)
    federation = engine.start(whole)
    clock[0] = 0.0
    engine.play(whole, federation, 5)
    assert clock[0] == pytest.approx(speed * _load(whole, 5))
    clock[0] = 0.0
    evaluation.evaluate(whole, federation, 5)
    assert clock[0] == pytest.approx(trains, rel=0.05)


def test_the_workflow_holds_together(copy):
    """Snakemake finds a way from the runs to the report, and knows what is there already."""
    if shutil.which("snakemake", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("Snakemake is not installed")
    shutil.copy(ROOT / "Snakefile", "Snakefile")
    shutil.copy(FIGURES / "claims.yaml", "paper_figures/claims.yaml")
    shutil.copytree(FIGURES / "gain", "paper_figures/gain")
    manifests = {path: path.unlink() for path in Path("paper_figures").rglob("runs.json")}
    next(Path("results/fedavg").glob("*.json")).unlink()
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--config", "scale=tiny"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    told = found.stdout + found.stderr
    assert found.returncode == 0, told
    assert re.search(r"^figure_one +1$", told, re.MULTILINE)
    assert re.search(r"^report_page +1$", told, re.MULTILINE)
    assert manifests
    assert not any(path.exists() for path in manifests)  # a dry run changes nothing


def test_a_result_of_an_experiment_that_has_more_fields_now_is_not_verified_as_another():
    """Committed results of spectral from before its layout was a field."""
    old = next(path for path in sorted((ROOT / "results" / "reference" / "spectral").glob("*.json")))
    if "layout" in json.loads(old.read_text())["experiment"]["method"]["fields"]:
        pytest.skip("the committed results have been made again")
    done = CliRunner().invoke(main, ["verify", old.stem, "--results", str(ROOT / "results" / "reference")])
    assert done.exit_code == 1
    assert "cannot be run again" in done.output
    assert "layout=vector" in done.output
