"""Results come back: bit for bit when run again, after an interruption at any round, after SIGKILL at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pflbench.core import files
from pflbench.core.errors import BadInput
from pflbench.experiment import code, provenance
from pflbench.experiment import run as runner
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.record import sealed
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
                assert process.poll() is None
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


def stopped(folder, **changes):
    """The checkpoint of a run that stopped after round 3."""

    def crash(now):
        if now.round == 4:
            raise Stop

    with pytest.raises(Stop):
        run(experiment(**changes), machine(folder), crash)
    return next(folder.rglob("*.checkpoint"))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    """The same shapes, another experiment: it was accepted, and its rounds became those of this result."""
    other, own = stopped(tmp_path / "a", seed=1), stopped(tmp_path / "b")
    own.write_bytes(other.read_bytes())
    with pytest.raises(BadInput, match=r"checkpoint = .*is of another run, [0-9a-f]{16}; delete it"):
        run(experiment(), machine(tmp_path / "b"))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("done", [0, -1, 4, 5, 6, "3", None])
def test_a_checkpoint_of_an_impossible_round_is_refused(tmp_path, done):
    path = stopped(tmp_path)
    leaves, note = files.load_state(path)
    files.save_state(path, leaves, {**note, "done": done})
    with pytest.raises(BadInput, match=r"checkpoint = .*delete it to start over"):
        run(experiment(), machine(tmp_path))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("note", ["", "[]", "null", "{}", '{"done": 3}', '{"done": 3, "journal": {"rounds": 1}}', "["])
def test_no_note_of_a_checkpoint_is_a_traceback(tmp_path, note):
    """With a checksum that is right, by someone who knows how."""
    path = stopped(tmp_path)
    leaves, _ = files.load_state(path)
    safetensors.torch.save_file(leaves, path, {"note": note, "checksum": files.fingerprint(leaves, note)})
    with pytest.raises(BadInput, match=r"checkpoint = .*delete it to start over"):
        run(experiment(), machine(tmp_path))


def edited(monkeypatch, name="core/local.py"):
    """As if ``name`` had been edited since."""
    monkeypatch.setattr(code, "HASHES", {**code.HASHES, name: "0" * 16})


def test_a_checkpoint_never_continues_under_other_code(whole, tmp_path, monkeypatch, capsys):
    path = stopped(tmp_path)
    edited(monkeypatch)
    rounds = []
    run(experiment(), machine(tmp_path), lambda now: rounds.append(now.round))
    assert rounds == [1, 2, 3, 4, 5]
    line = f"pflbench: {path}: made by other code (core/local.py changed since); starting over"
    assert capsys.readouterr().err.splitlines() == [line]


def test_cached_means_made_by_the_same_code(tmp_path, monkeypatch, capsys):
    first = run(experiment(), machine(tmp_path, keep_models=True))
    first.path.with_suffix(".bands.csv").touch()
    edited(monkeypatch, "baselines/ditto.py")  # has no part in it
    assert run(experiment(), machine(tmp_path)).cached
    edited(monkeypatch, "baselines/spectral.py")
    again = run(experiment(), machine(tmp_path))
    assert not again.cached
    assert "baselines/spectral.py changed since" in capsys.readouterr().err
    assert again.record["provenance"]["code"]["baselines/spectral.py"] == "0" * 16
    assert again.record["address"] == first.record["address"]
    assert [path.name for path in first.path.parent.iterdir()] == [first.path.name]  # nothing derived from the old one
    assert run(experiment(), machine(tmp_path)).cached


def test_code_of_another_release_or_unknown_code_is_taken_as_it_was(whole, tmp_path, monkeypatch):
    """What a release changes on purpose raises MEANING, and with it the address."""
    path = tmp_path / "spectral" / whole.path.name
    path.parent.mkdir()
    edited(monkeypatch)
    made = whole.record["provenance"]
    for told in ({**made, "version": "0.0.9"}, {k: v for k, v in made.items() if k not in ("version", "code")}):
        path.write_text(json.dumps(sealed({**whole.record, "provenance": told})))
        assert run(experiment(), machine(tmp_path)).cached


def test_the_code_that_is_hashed_is_what_a_run_loads():
    """Every file of ours that a run loads, those aside that choose, check, store and draw."""
    loaded = "import sys, json; from pflbench.experiment.experiment import Experiment; from pflbench.experiment.run import run"
    loaded += "; from pflbench.experiment.machine import Machine; import tempfile, pathlib"
    loaded += (
        "; run(Experiment.of({'method': 'spectral', 'rounds': 1}), Machine(results=pathlib.Path(tempfile.mkdtemp())))"
    )
    loaded += "; print(json.dumps([n for n in sys.modules if n.startswith('pflbench')]))"
    names = json.loads(subprocess.run([sys.executable, "-c", loaded], check=True, stdout=subprocess.PIPE).stdout)
    files = {f"{name.removeprefix('pflbench.').replace('.', '/')}.py" for name in names if "." in name}
    plain = {f"core/{name}.py" for name in ("errors", "fields", "files", "measures", "reading", "registry")}
    plain |= {
        f"experiment/{n}.py"
        for n in ("code", "experiment", "machine", "provenance", "record", "resolve", "run", "store")
    }
    plain |= {"data/datasets.py", "data/images.py", "data/prepared.py", "data/splits.py", "method.py", *code.CLOCK}
    packages = {
        f"{name}.py" for name in ("baselines", "clock", "core", "data", "data/sets", "engine", "experiment", "models")
    }
    made = {name for name in code.code_of(experiment()) if not name.endswith("__init__.py")}
    assert files - plain - packages <= made


def test_what_a_killed_run_left_is_swept_by_the_next(tmp_path):
    first = run(experiment(), machine(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    dead = first.path.with_name(f".{first.path.name}.{process.pid}.draft")
    alive = first.path.with_name(f".{first.path.name}.{os.getppid()}.draft")
    checkpoint = first.path.with_name(f".{first.path.stem}.checkpoint")
    for path in (dead, alive, checkpoint):
        path.write_bytes(b"half")
    assert run(experiment(), machine(tmp_path)).cached
    assert sorted(first.path.parent.iterdir()) == sorted([first.path, alive])


def test_a_draft_is_not_swept_while_it_is_written(tmp_path):
    """Its process number may be another's on another machine: the lock says that it is being written."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    draft = tmp_path / f".a.json.{process.pid}.draft"
    with files._held(draft):
        files.publish(tmp_path / "b.json", lambda path: path.write_text("{}"))
        assert draft.exists()
    files.publish(tmp_path / "b.json", lambda path: path.write_text("{}"))
    assert not draft.exists()


def test_a_full_disk_costs_checkpoints_and_models_but_not_the_result(whole, tmp_path, monkeypatch, capsys):
    def full(leaves, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(BadInput, match=r"safetensors: cannot be written: No space left"):
        run(experiment(), machine(tmp_path, keep_models=True))
    path = tmp_path / "spectral" / whole.path.name
    assert learned(path) == learned(whole.path)
    assert list(path.parent.iterdir()) == [path]
    (line,) = capsys.readouterr().err.splitlines()
    assert "no checkpoint after round 1, the run goes on" in line


def test_the_commit_is_never_that_of_a_repository_around_the_installation(tmp_path, monkeypatch):
    inside = tmp_path / "site-packages" / "provenance.py"
    inside.parent.mkdir()
    inside.touch()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(provenance, "__file__", str(inside))
    assert provenance.commit() is None
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    assert len(provenance.commit()) == 40


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
