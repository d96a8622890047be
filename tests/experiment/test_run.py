"""Results come back: bit for bit when run again, after an interruption at any round, after SIGKILL at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from pflbench.core import files
from pflbench.core.errors import BadInput
from pflbench.experiment import run as runner
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.experiment.run import run

SMALL = {"method": "spectral", "clients": 6, "rounds": 5, "epochs": 1, "participation": 0.5, "validation": 0.2}


def experiment(**changes):
    return Experiment.of({**SMALL, **changes})


def learned(path):
    """The bytes of a result without its provenance."""
    record = json.loads(path.read_text())
    del record["provenance"]
    return json.dumps(record)


def machine(folder, **changes):
    return Machine(results=folder, **{"device": "cpu", "checkpoint_s": 0.0, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run."""
    return run(experiment(), machine(tmp_path_factory.mktemp("whole")))


def test_again_is_a_cache_hit(whole):
    before = whole.path.stat().st_mtime_ns
    again = run(experiment(), machine(whole.path.parent.parent))
    assert again.cached
    assert not whole.cached
    assert again.record == whole.record
    assert whole.path.stat().st_mtime_ns == before


def test_the_same_run_elsewhere_gives_the_same_bytes(whole, tmp_path):
    other = run(experiment(), machine(tmp_path, threads=2))
    assert learned(other.path) == learned(whole.path)
    assert other.path.name == whole.path.name


class Stop(Exception):
    pass


def test_large_states_are_not_saved_all_the_time(tmp_path, monkeypatch):
    """Rounds of a second, checkpoints that take three: the next waits for sixty seconds, not for two."""
    clock, saved = [0.0], []
    monkeypatch.setattr(runner.time, "monotonic", lambda: clock[0])

    def save(path, leaves, note):
        saved.append(note["done"])
        clock[0] += 3

    def second(now):
        clock[0] += 1

    monkeypatch.setattr(runner.files, "save_state", save)
    run(experiment(rounds=70, eval_every=70), machine(tmp_path, checkpoint_s=2.0), second)
    assert saved == [2, 62]


@pytest.mark.parametrize("round", [1, 2, 3, 4])
def test_resume_at_every_round(whole, tmp_path, round):
    rounds = []

    def crash(now):
        rounds.append(now.round)
        if now.round == round + 1:  # the checkpoint of this round is not written yet
            raise Stop

    with pytest.raises(Stop):
        run(experiment(), machine(tmp_path), crash)
    assert not list(tmp_path.rglob("*.json"))
    resumed = []
    outcome = run(experiment(), machine(tmp_path), lambda now: resumed.append(now.round))
    assert resumed[0] == round + 1
    assert learned(outcome.path) == learned(whole.path)
    assert not list(tmp_path.rglob("*checkpoint*"))


def test_sigkill_at_any_moment(tmp_path):
    """Killed twice at random moments, started again each time: the bytes of one uninterrupted run."""
    arguments = [
        "--method",
        "spectral",
        "--clients",
        "6",
        "--rounds",
        "60",
        "--epochs",
        "1",
        "--eval-every",
        "7",
        "--json",
    ]
    code = "from dataclasses import replace; import pflbench.experiment.run as r; run = r.run; "
    code += "r.run = lambda e, m, w: run(e, replace(m, checkpoint_s=0.0), w); from pflbench.cli import main; main()"
    command = [sys.executable, "-c", code, "run", *arguments, "--results"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    chance, kills = random.Random(5), 0
    while kills < 2:
        with subprocess.Popen([*command, str(tmp_path / "killed")], **quiet) as process:
            while not list(tmp_path.rglob("*.checkpoint")):
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.2))
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
        kills += 1
    last = json.loads(subprocess.run([*command, str(tmp_path / "killed")], check=True, **quiet).stdout)
    assert not last["cached"]
    whole = run(
        Experiment.of({**SMALL, "rounds": 60, "eval_every": 7, "participation": 0.5, "validation": 0}),
        machine(tmp_path / "whole"),
    )
    assert whole.path.name == f"{last['address']}.json"
    assert learned(tmp_path / "killed" / "spectral" / whole.path.name) == learned(whole.path)


def test_ctrl_c_finishes_the_round_and_says_so(whole, tmp_path):
    def ask(now):
        if now.round == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(runner.Interrupted, match="after round 2 of 5"):
        run(experiment(), machine(tmp_path, checkpoint_s=1e9), ask)
    outcome = run(experiment(), machine(tmp_path))
    assert learned(outcome.path) == learned(whole.path)


def test_loop_and_vmap_learn_the_same_counts(whole, tmp_path):
    other = run(experiment(precision="float64"), machine(tmp_path / "a", engine="loop"))
    again = run(experiment(precision="float64"), machine(tmp_path / "b", engine="vmap"))
    assert other.record["curve"] == again.record["curve"]
    assert other.record["address"] == again.record["address"] != whole.record["address"]


def test_kept_models_are_the_final_ones(tmp_path):
    outcome = run(experiment(method="local_only"), machine(tmp_path, keep_models=True))
    leaves = load_file(outcome.path.with_suffix(".safetensors"))
    assert leaves["c/head.weight"].shape == (6, 10, 64)
    assert files.load_state(outcome.path.with_suffix(".safetensors"))[1] == {"address": outcome.record["address"]}
    assert run(experiment(method="local_only"), machine(tmp_path, keep_models=True)).cached


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_corrupt_checkpoint_is_refused(tmp_path, damage):
    def crash(now):
        if now.round == 3:
            raise Stop

    with pytest.raises(Stop):
        run(experiment(), machine(tmp_path), crash)
    path = next(tmp_path.rglob("*.checkpoint"))
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes({"flip": content, "cut": content[: len(content) // 2], "empty": b""}[damage])
    with pytest.raises(BadInput, match=r"checkpoint.*corrupt.*delete it to start over"):
        run(experiment(), machine(tmp_path))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"address": "0"}'])
def test_corrupt_result_is_refused(whole, tmp_path, text):
    path = tmp_path / "spectral" / whole.path.name
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(BadInput, match="delete it and run again"):
        run(experiment(), machine(tmp_path))
    assert path.read_text() == text


def test_address_is_of_what_changes_numbers(whole):
    base = resolve(experiment())
    assert base.address == resolve(experiment(partition="dirichlet:alpha=0.1")).address == whole.record["address"]
    changes = [{"lr": 0.2}, {"seed": 1}, {"partition_seed": 1}, {"precision": "tf32"}, {"partition": "iid"}, {"method": "fedavg"},
               {"method": "spectral:tau=0.5"}, {"model": "mlp:hidden=32"}, {"schedule": "cosine"}, {"eval_every": 2}]  # fmt: skip
    addresses = {resolve(experiment(**change)).address for change in changes}
    assert len(addresses | {base.address}) == len(changes) + 1


def test_record_costs_by_hand(whole):
    record = whole.record
    sizes = record["clients"]["train"]
    batches = [[-(-sizes[k] // 10) for k in cohort] for cohort in record["cohorts"]]
    assert record["costs"]["contribute"] == batches
    assert record["costs"]["personalise"] == batches
    numbers = 64 * 64 + 64 + 64 * 10 + 10
    assert (record["costs"]["up"], record["costs"]["down"]) == (numbers, numbers)
    assert [len(cohort) for cohort in record["cohorts"]] == [3] * 5
    assert sum(record["clients"]["train"]) + sum(record["clients"]["validation"]) == 1437


def test_a_run_pairs_with_another_method(tmp_path, whole):
    other = run(experiment(method="local_only"), machine(tmp_path))
    assert other.record["cohorts"] == whole.record["cohorts"]
    assert other.record["clients"] == whole.record["clients"]
    assert (other.record["costs"]["up"], other.record["costs"]["down"]) == (0, 0)
