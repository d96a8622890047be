"""Two processes on one address: one computes, the other waits and reads; the lock goes with the process."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from studies import ROOT

from pflbench.core import files
from pflbench.core.errors import BadInput
from pflbench.experiment import store
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.run import run

SLOW = """
import sys, time
from pathlib import Path
import pflbench.experiment.run as runner
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine

def watch(now):
    print("round", now.round, flush=True)
    while now.round == int(sys.argv[2]):
        time.sleep(0.01)
        if Path(sys.argv[1], "go").exists():
            break

machine = Machine(device="cpu", results=Path(sys.argv[1]), checkpoint_s=0.0)
outcome = runner.run(Experiment.of({"method": "fedavg", "clients": 4, "rounds": 8, "epochs": 1}), machine, watch)
print("cached" if outcome.cached else "computed", flush=True)
"""
SAME = {"method": "fedavg", "clients": 4, "rounds": 8, "epochs": 1}


def start(results, until=0):
    """A process that stays in round ``until`` while there is no file "go"."""
    command = [sys.executable, "-c", SLOW, str(results), str(until)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def lines(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.splitlines(), err.splitlines()


def test_of_two_processes_one_computes_and_the_other_reads_what_it_made(tmp_path):
    first = start(tmp_path, until=1)
    assert first.stdout.readline() == "round 1\n"
    second = start(tmp_path)
    line = second.stderr.readline()
    (tmp_path / "go").touch()
    (told, said), (waited, more) = lines(first), lines(second)
    assert said == more == []
    assert told == [*(f"round {n}" for n in range(2, 9)), "computed"]
    assert waited == ["cached"]
    (path,) = (tmp_path / "fedavg").iterdir()  # no lock, no checkpoint, no draft
    assert line == f"pflbench: fedavg {path.stem} is being run by another process; waiting for it\n"
    alone = run(Experiment.of(SAME), Machine(device="cpu", results=tmp_path / "alone"))
    assert {**store.load(path), "provenance": None} == {**alone.record, "provenance": None}


def test_the_lock_of_a_killed_process_holds_nobody_and_who_waited_goes_on_from_its_checkpoint(tmp_path):
    first = start(tmp_path, until=3)
    for number in (1, 2, 3):
        assert first.stdout.readline() == f"round {number}\n"
    second = start(tmp_path)
    assert "waiting" in second.stderr.readline()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    told, _ = lines(second)
    assert "round 1" not in told  # of the checkpoint
    assert told[-2:] == ["round 8", "computed"]
    assert [path.suffix for path in (tmp_path / "fedavg").iterdir()] == [".json"]


def test_a_lock_that_a_killed_process_left_is_removed_by_the_same_run(tmp_path):
    first = start(tmp_path, until=1)
    assert first.stdout.readline() == "round 1\n"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    (lock,) = tmp_path.rglob("*.lock")
    assert not files.held(lock)
    told, err = lines(start(tmp_path))
    assert (told[-1], err) == ("computed", [])
    (path,) = (tmp_path / "fedavg").iterdir()
    store.lock_path(path).touch()  # killed after it published
    assert lines(start(tmp_path)) == (["cached"], [])
    assert [each.name for each in (tmp_path / "fedavg").iterdir()] == [path.name]


def test_a_finished_result_is_read_while_another_process_holds_its_lock(tmp_path):
    """Nothing of the holder's is swept."""
    path = run(Experiment.of(SAME), Machine(device="cpu", results=tmp_path)).path
    store.checkpoint_path(path).touch()
    with files.alone(store.lock_path(path), pytest.fail):
        assert run(Experiment.of(SAME), Machine(device="cpu", results=tmp_path)).cached
        assert store.checkpoint_path(path).exists()
        assert files.held(store.lock_path(path))


def test_one_holder_at_a_time_though_each_removes_the_file(tmp_path):
    """The file that a waiter has open is gone when it gets the lock: it must not count."""
    lock, inside, most = tmp_path / "a.lock", [], []

    def enter():
        for _ in range(30):
            with files.alone(lock, lambda: None):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 120
    assert not lock.exists()


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"lock = .*: cannot be written"), files.alone(tmp_path / "file" / "a", print):
        pass
