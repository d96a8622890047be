"""``pflbench check FOLDER``: every kind of fault in a store is told in one line, and nothing else is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from studies import ROOT

from pflbench.cli import main
from pflbench.core import files
from pflbench.experiment import store
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.record import sealed
from pflbench.experiment.run import run

RESULTS = Path("results")


def check(folder=RESULTS):
    outcome = CliRunner().invoke(main, ["check", str(folder)])
    assert outcome.exit_code in (0, 1), (outcome.output, outcome.exception)
    *faults, summary = outcome.stdout.splitlines()
    assert outcome.exit_code == bool(faults)
    return faults, summary


def first():
    return next(Path("results/fedavg").glob("*.json"))


def changed(change, seal=True):
    """The first result, changed by someone who knows how to seal, or does not."""
    path = first()
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(sealed(record) if seal else record))
    return path


def dead():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def beside(name, content=b"x"):
    path = Path("results/fedavg") / name.format(first().stem)
    path.write_bytes(content)
    return path


def elsewhere(change):
    """A second result of the first one's address."""
    record = json.loads(first().read_text())
    change(record)
    path = RESULTS / "later" / "fedavg" / first().name
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(sealed(record)))
    return path


def moved():
    target = RESULTS / "ditto" / first().name
    return first().rename(target)


def emptied(suffix):
    """What was derived from a result stays when the result goes."""
    derived = next(RESULTS.glob(f"*/*{suffix}"))
    for path in derived.parent.glob(f"{derived.name.partition('.')[0]}.*"):
        if path != derived:
            path.unlink()
    return derived


def models(content=None):
    """Kept models of another run."""
    import torch

    path = beside("{}.safetensors", b"half")
    if content is not None:
        files.save_state(path, {"w": torch.zeros(2)}, content)
    return path


def link():
    path = RESULTS / "fedavg" / "there"
    path.symlink_to(Path("..").resolve(), target_is_directory=True)
    return path


def pipe():
    path = RESULTS / "fedavg" / f"{'0' * 16}.json"
    os.mkfifo(path)
    return path


def renamed(name):
    return first().rename(first().with_name(name))


FAULTS = {  # what is done to a store -> what is said about the file
    "a count": (
        lambda: changed(lambda r: r["curve"]["official"].__setitem__(-1, 1), seal=False),
        "its checksum differs",
    ),
    "provenance": (lambda: changed(lambda r: r["provenance"].update(threads=99), seal=False), "its checksum differs"),
    "the experiment": (lambda: changed(lambda r: r["experiment"].update(lr=0.7)), "its experiment has the address "),
    "the address": (lambda: changed(lambda r: r.update(address="0" * 16)), "its experiment has the address "),
    "the name": (lambda: renamed(f"{'0' * 16}.json"), "holds address "),
    "no address": (lambda: renamed("best.json"), "is no result: it is not named by an address"),
    "a type": (lambda: changed(lambda r: r["costs"].update(up="many")), "costs.up: Input should be a valid integer"),
    "a field less": (lambda: changed(lambda r: r["clients"].pop("train")), "clients.train: Field required"),
    "a field more": (lambda: changed(lambda r: r.update(mine=1)), "mine: Extra inputs are not permitted"),
    "a field more inside": (lambda: changed(lambda r: r["curve"].update(mine=1)), "curve.mine: Extra inputs"),
    "NaN": (lambda: changed(lambda r: r["provenance"].update(seconds=float("nan")), seal=False), "NaN is no number"),
    "infinity": (lambda: changed(lambda r: r["provenance"].update(seconds=float("inf")), seal=False), "is no number"),
    "shapes": (lambda: changed(lambda r: r["cohorts"].pop()), "rounds does not fit the experiment"),
    "half": (lambda: first().write_text("{") and first(), "is corrupt"),
    "empty": (lambda: beside("0123456789abcdef.json", b""), "is corrupt"),
    "another said": (lambda: elsewhere(lambda r: r["curve"]["official"].__setitem__(-1, 1)), "says otherwise than "),
    "another method": (moved, "is a result of fedavg, and not found in a folder of another name"),
    "bands left": (lambda: emptied(".bands.csv"), "belongs to a result that is not there"),
    "split left": (lambda: emptied(".split.npz"), "belongs to a result that is not there"),
    "models left": (lambda: beside("0123456789abcdef.safetensors"), "belongs to a result that is not there"),
    "models broken": (models, "kept models: is corrupt"),
    "models of another": (lambda: models({"address": "0" * 16}), "kept models of another run, 0000000000000000"),
    "checkpoint, finished": (lambda: beside(".{}.checkpoint"), "a checkpoint of a run that is finished"),
    "checkpoint": (lambda: beside(".0123456789abcdef.checkpoint"), "a checkpoint of a run that stopped"),
    "lock": (lambda: beside(".{}.lock"), "a lock that a killed run left"),
    "draft": (lambda: beside(f".{{}}.json.{dead()}.draft"), "a draft that a killed process left"),
    "a stranger": (lambda: beside("notes.txt"), "is no result, and belongs to none"),
    "a hidden stranger": (lambda: beside(".{}.swp"), "is no result, and belongs to none"),
    "an ending": (lambda: beside("{}.parquet"), "is no result, and belongs to none"),
    "a link": (link, "is no plain file"),
    "a pipe": (pipe, "is no plain file"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_in_one_line(copy, name):
    assert check()[0] == []
    damage, told = FAULTS[name]
    path = damage()
    (line,), summary = check()
    assert line.startswith(f"{path}: ")
    assert told in line
    assert summary.endswith(", 1 fault")


def test_faults_are_all_told(copy):
    made = [beside("notes.txt"), beside(".{}.lock"), changed(lambda r: r.update(mine=1))]
    lines, summary = check()
    assert sorted(line.partition(": ")[0] for line in lines) == sorted(map(str, made))
    assert summary.endswith(", 3 faults")


def test_what_says_the_same_twice_is_no_fault(copy):
    """Run on two machines, filed in two places."""
    elsewhere(lambda r: r["provenance"].update(threads=99))
    beside("README.md")
    held = len(list(RESULTS.rglob("*.json")))
    assert check() == ([], f"{held} results ({held} sealed, 0 unsealed), no faults")


def test_what_a_living_process_has_is_no_fault(copy):
    result = RESULTS / "fedavg" / f"{'0' * 16}.json"
    store.checkpoint_path(result).touch()
    beside(f".{{}}.json.{os.getpid()}.draft")
    with files.alone(store.lock_path(result), pytest.fail):
        assert check()[0] == []
    (line,), _ = check()
    assert "a checkpoint of a run that stopped" in line


def test_kept_models_belong_to_their_result(tmp_path):
    experiment = Experiment.of({"method": "fedavg", "clients": 3, "rounds": 1, "epochs": 1})
    run(experiment, Machine(device="cpu", results=tmp_path, keep_models=True))
    assert check(tmp_path) == ([], "1 result (1 sealed, 0 unsealed), no faults")


def test_the_committed_results_are_whole():
    faults, summary = check(ROOT / "results" / "reference")
    assert faults == []
    held = len(list(ROOT.glob("results/reference/*/*.json")))
    assert summary.startswith(f"{held} results (")


def test_control_characters_in_a_name_reach_no_terminal(copy):
    beside("a\x1b[2Jb.txt")
    assert check()[0] == ["results/fedavg/a[2Jb.txt: is no result, and belongs to none"]


@pytest.mark.parametrize("what", ["empty", "nowhere", "x" * 5000, "nul\0"])
def test_what_is_no_store_is_one_line(copy, what):
    Path("empty").mkdir()
    outcome = CliRunner().invoke(main, ["check", what])
    assert outcome.exit_code == 2, outcome.exception
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("pflbench: ")


def test_a_method_stays_a_method_beside_a_folder_of_its_name(copy, monkeypatch):
    from pflbench.laws import laws

    asked = []
    monkeypatch.setattr(laws, "check", lambda method: asked.append(method) or [])
    Path("fedavg").mkdir()
    CliRunner().invoke(main, ["check", "fedavg"])
    assert asked == ["fedavg"]
    assert CliRunner().invoke(main, ["check", "./fedavg"]).exit_code == 2
    assert asked == ["fedavg"]
