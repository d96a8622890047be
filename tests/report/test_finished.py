"""A figure gets exactly the runs it asks for, or fails."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from studies import rows_of

from pflbench.cli import main
from pflbench.core.errors import BadInput
from pflbench.experiment.machine import Machine
from pflbench.report import figures
from pflbench.report.finished import collect
from pflbench.study import runs
from pflbench.study.workload import Workload


def test_collect_gives_one_run_per_seed():
    runs = rows_of("ditto", (0.7, 0.8, 0.9), lam=1.0) + rows_of("ditto", (0.1, 0.1, 0.1), lam=2.0)
    found = collect(runs[::-1], range(3), label="ditto", **{"method.lam": 1.0})
    assert [run.seed for run in found] == [0, 1, 2]


def test_collect_fails_on_a_field_that_was_not_mentioned():
    runs = rows_of("ditto", (0.7, 0.8, 0.9), lam=1.0) + rows_of("ditto", (0.1, 0.1, 0.1), lam=2.0)
    with pytest.raises(BadInput, match=r"differ in method.lam \(1.0, 2.0\)"):
        collect(runs, range(3), label="ditto")


def test_collect_fails_on_a_missing_and_on_a_doubled_run():
    runs = rows_of("ditto", (0.7, 0.8, 0.9), lam=1.0)
    with pytest.raises(BadInput, match="0 runs with seed 1"):
        collect([runs[0], runs[2]], range(3), label="ditto")
    with pytest.raises(BadInput, match="2 runs with seed 2"):
        collect([*runs, runs[2]], range(3), label="ditto")
    with pytest.raises(BadInput, match="3 runs for 2 seeds"):
        collect(runs, range(2), label="ditto")


def test_a_figure_is_drawn_from_all_of_its_runs_or_not_at_all(copy):
    files = figures.produce("one", "tiny", Path("results"))
    assert {file.suffix for file in files} == {".csv", ".pdf", ".png", ".svg"}
    assert b"/FontFile2" in files[1].read_bytes()  # fonts embedded as TrueType
    before = {file: file.read_bytes() for file in files}
    assert {file: file.read_bytes() for file in figures.produce("one", "tiny", Path("results"))} == before
    next(Path("results/fedavg").glob("*.json")).unlink()
    with pytest.raises(BadInput, match="this run is missing"):
        figures.produce("one", "tiny", Path("results"))
    outcome = CliRunner().invoke(main, ["figure", "one", "--scale", "tiny"])
    assert outcome.exit_code == 2
    assert "this run is missing" in outcome.output


def test_a_run_that_crashes_fails_the_figure_and_no_other_run(copy, monkeypatch):
    """Mutation 18: a crashed run silently left out of a mean."""
    plan, machine = Workload.of("tiny", ["two"]), Machine(device="cpu", results=Path("fresh"))
    real, doomed = runs.run, plan.needed[3].address

    def crash(experiment, *rest):
        if experiment.address == doomed:
            raise RuntimeError("out of memory")
        return real(experiment, *rest)

    monkeypatch.setattr(runs, "run", crash)
    failures = runs.work(plan.needed, machine)
    assert [(each.needed.address, each.reason) for each in failures] == [(doomed, "RuntimeError: out of memory")]
    assert sum(each.done(machine.results) for each in plan.needed) == len(plan.needed) - 1
    with pytest.raises(BadInput, match=doomed):
        figures.produce("two", "tiny", Path("fresh"))
    monkeypatch.setattr(runs, "run", real)
    assert runs.work(plan.needed, machine) == []  # goes on with what is missing
    figures.produce("two", "tiny", Path("fresh"))


def test_the_grid_command_fails_if_a_run_fails(copy, monkeypatch):
    def crash(*rest):
        raise RuntimeError("no")

    monkeypatch.setattr(runs, "run", crash)
    outcome = CliRunner().invoke(main, ["grid", "--scale", "tiny", "--results", "empty", "--part", "1/6"])
    assert outcome.exit_code == 1
    assert "RuntimeError: no" in outcome.output
    outcome = CliRunner().invoke(main, ["grid", "--scale", "tiny", "--part", "7/6"])
    assert outcome.exit_code == 2


def test_committed_results_count(copy):
    Path("results/reference").mkdir()
    shutil.move("results/fedavg", "results/reference/fedavg")
    figures.produce("one", "tiny", Path("results"))
    assert all(each.done(Path("results")) for each in Workload.of("tiny", ["one"]).needed)
