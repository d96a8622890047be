"""A run whose numbers ran away is told as such, everywhere; it supports nothing and is averaged nowhere unsaid."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from studies import FIGURES, claim_of, made, rows_of, study_of

from pflbench.cli import main
from pflbench.core import measures
from pflbench.experiment.record import sealed
from pflbench.report import claims, figures

LOST = ["run", "--method", "fedavg", "--clients", "4", "--rounds", "4", "--lr", "1e20", "--eval-every", "2"]


def diverged(run, round=3):
    return replace(run, record={**run.record, "diverged": round})


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_not_a_number_predicts_nothing(tmp_path):
    """``argmax`` of NaN is the first class: such a model scored a tenth of the digits."""
    done = call(*LOST, "--results", tmp_path, "--json")
    found = json.loads(done.stdout)
    record = json.loads(Path(found["path"]).read_text())
    assert record["curve"]["official"] == [0, 0]
    assert record["diverged"] == 2
    assert found["diverged"] == {"round": 2, "finite_round": None, "generic": None, "personal": None}
    shown = call("show", found["address"], "--results", tmp_path).stdout
    assert "diverged: numbers are no longer finite at the evaluation of round 2" in shown


def test_the_last_finite_value_is_told():
    run = diverged(made("ditto", 0, gm=0.1, pm=0.1), 3)
    assert measures.diverged(run.record) == {"round": 3, "finite_round": 2, "generic": 1.0, "personal": 1.0}
    assert measures.diverged(made("ditto", 0, gm=0.1).record) is None


def test_baselines_that_diverged_support_no_claim():
    """With every baseline marked diverged, the claim became supported."""
    ours = rows_of("spectral", (0.9, 0.91, 0.92))
    theirs = rows_of("fedavg", (0.1, 0.11, 0.12))
    assert claims.judge("C", claim_of(), study_of(ours + theirs)).verdict == "supported"
    for lost in (theirs[:1], theirs):
        rest = [run for run in theirs if run not in lost]
        found = claims.judge("C", claim_of(), study_of([*ours, *rest, *map(diverged, lost)]))
        assert found.verdict == "inconclusive"
        assert f"rests on runs that diverged, {len(lost)}/6: " in found.note
        assert all(run.address in found.note for run in lost)
        assert [each.verdict for each in found.findings] == ["inconclusive"]
    own = claims.judge("C", claim_of(), study_of([*map(diverged, rows_of("spectral", (0.0, 0.0, 0.01))), *theirs]))
    assert own.verdict == "not supported"
    assert "diverged, 3/6" in own.note


def test_a_mean_says_how_many_diverged():
    runs = rows_of("ditto", (0.7, 0.8, 0.1))
    assert "diverged" not in figures.estimate(runs, (0.7, 0.8, 0.1))
    assert figures.estimate([*runs[:2], diverged(runs[2])], (0.7, 0.8, 0.1))["diverged"] == "1/3"


def test_the_accuracy_table_says_it_and_calls_it_the_best_of_nothing():
    module = figures.load_module(FIGURES / "accuracy" / "figure.py")
    best, rest = rows_of("spectral", (0.9, 0.91, 0.92)), rows_of("fedavg", (0.1, 0.11, 0.12))
    frame = module.table(study_of([*best[:2], diverged(best[2]), *rest]))
    assert set(frame[frame["method"] == "spectral"]["mark"]) == {""}
    text = module.latex(frame)
    assert text.count("diverged 1/3") == 2
    assert "mathbf" not in text  # nor is anything above it


@pytest.mark.parametrize("command", ["figure", "trace"])
def test_commands_say_it(copy, command):
    path = next(Path("results/fedavg").glob("*.json"))
    assert "diverged" not in call(command, "one", "--scale", "tiny").output
    path.write_text(json.dumps(sealed(json.loads(path.read_text()) | {"diverged": 2})))
    said = call(command, "one", "--scale", "tiny")
    assert said.exit_code == 0, said.exception
    assert "diverged" in said.output
