"""A real federation: it learns what the simulated one learns, its seconds are the fleet's, and nothing ever hangs."""

import os
import signal
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import gloo_on_the_loopback, tiny, world

from pflbench.baselines import METHODS
from pflbench.clock.fleet import Fleet
from pflbench.clock.timeline import PROTOCOLS, compare, simulate
from pflbench.core import tree
from pflbench.engine import engine
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.live import federation
from pflbench.live.rehearsal import late, phases, rehearsed
from pflbench.live.shaped_link import Broken, Link, pack, unpack
from pflbench.models import batchnorm

pytestmark = pytest.mark.skipif(not gloo_on_the_loopback(), reason="needs gloo and a loopback interface")

SMALL = {"method": "spectral", "clients": 3, "participation": 0.67, "rounds": 3, "epochs": 1, "precision": "float64"}
PATIENCE = 20.0  # seconds; a test that hangs ends with a lost client


def fleet_of(clients: int, batch_s=0.001, up_bps=8e6, down_bps=16e6, aggregation_s=0.02) -> Fleet:
    """Uneven: client k is 1 + k times slower than client 0."""
    slow = 1.0 + np.arange(clients)
    arrays = (batch_s * slow, 2 * batch_s * slow, down_bps / slow, up_bps / slow, np.full(clients, 0.003))
    return Fleet("set", *arrays, aggregation_s, 0.0, 0.0, 0.0, sources={"contribute_s": "test"})


def experiment(**changes) -> Experiment:
    return Experiment.of({**SMALL, **changes})


def predicted(run, fleet):
    return simulate(run.record, fleet, run.timeline.protocol, rng=np.random.default_rng(0), block="client")


@pytest.fixture(scope="module")
def runs():
    """Both protocols, one after the other, on the same three processes; and the processes afterwards."""
    fleet = fleet_of(3)
    with federation.serve(experiment(), Machine(), fleet, patience_s=PATIENCE) as server:
        found = {protocol: federation.play(server, protocol, 3) for protocol in PROTOCOLS}
        assert not server.lost
        yield found, server, fleet
    assert all(process.exitcode is not None for process in server.processes)


# What is learned


def test_both_protocols_learn_what_the_simulated_run_learns_bit_for_bit(runs):
    found, server, _ = runs
    expected = federation.simulated(server.world, 3)
    for run in found.values():
        assert federation.apart(run.federation, expected) == 0
        ours, theirs = (tree.flatten(tuple(federation)) for federation in (run.federation, expected))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert federation.apart(engine.start(server.world), expected) > 0.01  # something was learned


@pytest.mark.parametrize("name", METHODS.own())
def test_the_clock_is_told_what_the_engine_records(name):
    made = world(METHODS.get(name)())
    state = engine.start(made)
    like = engine.upload_of_nothing(made, state.w, state.c)
    for round in range(2):
        state, cost = engine.play(made, state, round)
        costs = federation.costs(made, state.w, like, [cost.cohort])["costs"]
        assert (costs["contribute"], costs["personalise"]) == ([cost.contribute], [cost.personalise])
        assert (costs["up"], costs["down"]) == (cost.up, cost.down)
        assert costs["bytes_per_number"] == (8 if cost.down else 4)  # float64


def test_a_client_has_its_own_samples_only():
    made = world(METHODS.get("spectral")())
    own = federation.own_world(made, 3)
    assert len(own.pixels.x) == len(made.train[3]) == sum(map(len, own.train))
    assert torch.equal(own.pixels.x, made.pixels.x[made.train[3]])
    assert len(own.official.x) == 0
    w, c = engine.start(made)
    arguments = (w, tree.rows(c, torch.tensor([3])), np.array([3]), 1, 2)
    results = [engine.stage(one, "contribute", one.method.contribute, *arguments) for one in (made, own)]
    assert all(torch.equal(*pair) for pair in zip(*(tree.flatten(one).values() for one in results), strict=True))


@pytest.mark.parametrize("name", METHODS.names())
def test_the_upload_of_a_client_without_a_batch_has_the_form_of_every_upload(name):
    made = world(METHODS.get(name)())
    w, c = engine.start(made)
    real, _ = engine.stage(made, "contribute", made.method.contribute, w, c, np.arange(6), 0, 2)
    like = engine.upload_of_nothing(made, w, c)
    assert {key: leaf.shape[1:] for key, leaf in tree.flatten(real).items()} == {
        key: leaf.shape for key, leaf in tree.flatten(like).items()
    }


def test_a_tree_survives_as_bytes():
    method = batchnorm.LocalStatistics(METHODS.get("spectral")())
    federation = engine.start(world(method, model=lambda: tiny(norm=True), precision="float32"))
    odd = {"a": torch.tensor(True), "b": (torch.randn(3, 2, dtype=torch.float64), {}), "c": torch.arange(3)}
    for one in (tuple(federation), odd, {}, torch.zeros(())):
        payload = pack(one)
        assert payload.dtype == torch.uint8
        assert len(payload) == sum(leaf.numel() * leaf.element_size() for leaf in tree.flatten(one).values())
        back = unpack(payload, one)
        assert {k: v.dtype for k, v in tree.flatten(back).items()} == {k: v.dtype for k, v in tree.flatten(one).items()}
        tree.each(lambda left, right: torch.testing.assert_close(left, right, rtol=0, atol=0) or left, back, one)


# What is measured


def test_a_real_run_is_never_faster_than_its_fleet(runs):
    found, _, fleet = runs
    for run in found.values():
        clock = predicted(run, fleet)
        for ours, theirs in zip(run.timeline.rounds, clock.rounds, strict=True):
            assert ours.clients.tolist() == theirs.clients.tolist()
            for stage in ("download", "generic", "upload", "personal"):
                real, least = (np.diff(getattr(each, stage))[:, 0] for each in (ours, theirs))
                assert (real >= least - 1e-6).all(), stage
            assert np.diff(ours.aggregation)[0] >= fleet.aggregation_s - 1e-6
        assert (run.timeline.ends >= clock.ends - 1e-6).all()
        assert (run.timeline.up_bytes, run.timeline.down_bytes) == (clock.up_bytes, clock.down_bytes)


def test_the_upload_leaves_before_the_personal_stage_only_under_wait_free(runs):
    found, _, _ = runs
    for protocol, run in found.items():
        for each in run.timeline.rounds:
            assert (each.download[:, 1] <= each.generic[:, 0]).all()
            assert (each.generic[:, 1] <= each.personal[:, 0]).all()
            if protocol == "wait_free":
                assert (each.upload[:, 0] < each.personal[:, 1]).all()
                assert (each.upload[:, 0] >= each.generic[:, 1]).all()
            else:
                assert (each.upload[:, 0] >= each.personal[:, 1]).all()


@pytest.mark.parametrize("lost", [False, True])
def test_a_rehearsal_shows_the_fleet_it_ran_on(lost):
    """The clock's own runs, read as if they were measured, give the fleet back, and with it the same predictions."""
    fleet = fleet_of(3)
    fleet = Fleet(**{**vars(fleet), "latency_s": np.zeros(3)})
    cohorts, costs = [[0, 1, 2], [0, 2], [1, 2]], {"up": 1000, "down": 500, "bytes_per_number": 4}
    costs |= {"contribute": [[2, 3, 4], [2, 4], [3, 4]], "personalise": [[5, 6, 7], [5, 7], [6, 7]]}
    record = {"experiment": {"clients": 3}, "cohorts": cohorts, "costs": costs}
    both = compare(record, fleet, rng=np.random.default_rng(0), block="client")
    if lost:  # client 1 left no log
        for each in both["compute_and_wait"].rounds:
            here = each.clients != 1
            for name in ("clients", "download", "generic", "upload", "wait", "personal"):
                object.__setattr__(each, name, getattr(each, name)[here])
    found = rehearsed(both["compute_and_wait"], record, fleet)
    for name in ("contribute_s", "personalise_s", "down_bps", "up_bps"):
        assert getattr(found, name) == pytest.approx(getattr(fleet, name))
    assert found.aggregation_s == pytest.approx(fleet.aggregation_s)
    again = compare(record, found, rng=np.random.default_rng(0), block="client")
    for protocol in PROTOCOLS:
        assert again[protocol].ends == pytest.approx(both[protocol].ends)
    assert late(both["wait_free"], record, fleet) == 0
    assert late(both["wait_free"], record, Fleet(**{**vars(fleet), "contribute_s": fleet.contribute_s / 2})) == 0.5


def test_phases_by_hand(runs):
    timeline = runs[0]["wait_free"].timeline
    spans = [each.upload for each in timeline.rounds]
    assert phases(timeline)["upload"] == pytest.approx(np.mean([end - start for span in spans for start, end in span]))
    assert phases(timeline)["aggregation"] >= 0.02


# Links


@pytest.fixture
def ends(tmp_path):
    """Both ends of a link, in one process."""
    found = {}
    threads = [threading.Thread(target=lambda e=end: found.update({e: Link(tmp_path, 0, e, 2.0)})) for end in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return found


def test_a_payload_takes_its_latency_and_its_bits(ends):
    payload = torch.arange(50_000).to(torch.uint8)
    sender = threading.Thread(target=ends[0].send, args=(3, 7, payload), kwargs={"bps": 2e6, "latency_s": 0.05})
    sender.start()
    frame = ends[1].receive()
    sender.join(5)
    assert (frame.what, frame.number) == (3, 7)
    assert torch.equal(frame.payload, payload)
    seconds = frame.arrived - frame.left
    assert 0.25 <= seconds < 0.25 + 1.0  # 0.05 and 400 000 bits at 2 Mbit/s; the rest is the machine's
    sender = threading.Thread(target=ends[0].send, args=(3,), kwargs={"bps": 1.0, "latency_s": 9.0})
    sender.start()
    assert len(ends[1].receive().payload) == 0  # no payload, no time
    sender.join(5)


def test_silence_and_a_closed_connection_are_told_apart(ends):
    start = time.monotonic()
    with pytest.raises(Broken, match=r"no answer within 0.3 s"):
        ends[0].receive(0.3)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("sends", [True, False])
def test_a_closed_connection_is_noticed_at_once(tmp_path, sends):
    """The other end dies, before or while this one waits: Broken, and never gloo's own error."""
    context = get_context("forkserver")
    other = context.Process(target=connects_and_dies, args=(tmp_path,), daemon=True)
    other.start()
    link = Link(tmp_path, 0, 0, 10.0)
    start = time.monotonic()
    payload = torch.zeros(5_000_000, dtype=torch.uint8)
    for _ in range(2):
        with pytest.raises(Broken, match="the connection is closed"):
            link.send(1, payload=payload, bps=1e9) if sends else link.receive()
    assert time.monotonic() - start < 8
    other.join(5)


def connects_and_dies(folder: Path) -> None:
    Link(folder, 0, 1, 10.0)
    time.sleep(0.1)
    os._exit(3)


# What goes wrong


class Killer:
    """A ``watch`` that sends a signal to clients of ``server`` while they compute in a round, and keeps what was said."""

    def __init__(self):
        self.server, self.said = None, []
        self.aim("never", [], signal.SIGKILL)

    def aim(self, text, clients, number):
        self.text, self.clients, self.number = text, clients, number

    def __call__(self, text):
        self.said.append(text)
        if self.text in text:
            for client in self.clients:
                pid = self.server.processes[client].pid
                threading.Timer(0.05, os.kill, (pid, self.number)).start()


def test_killed_clients_are_named_and_left_out_and_the_last_one_ends_the_run():
    killer, fleet, start = Killer(), fleet_of(3, batch_s=0.002), time.monotonic()
    with federation.serve(experiment(participation=1.0), Machine(), fleet, patience_s=PATIENCE, watch=killer) as server:
        killer.server = server
        killer.aim("round 2 of", [1], signal.SIGKILL)
        run = federation.play(server, "wait_free", 3)
        assert server.lost == {1: "the connection is closed"}
        assert "client 1 is lost: the connection is closed; going on without it" in killer.said
        assert run.record["cohorts"] == [[0, 1, 2], [0, 2], [0, 2]]
        assert [each.clients.tolist() for each in run.timeline.rounds] == [[0, 2]] * 3  # client 1 left no log
        assert all(torch.isfinite(leaf).all() for leaf in tree.flatten(tuple(run.federation)).values())
        killer.aim("round 1 of", [0, 2], signal.SIGKILL)
        with pytest.raises(federation.Stopped, match=r"no client is left; 0: the connection is closed, 1: .*, 2: "):
            federation.play(server, "compute_and_wait", 3)
    assert time.monotonic() - start < 3 * PATIENCE
    assert all(process.exitcode is not None for process in server.processes)


def test_a_client_that_hangs_is_left_out_after_the_patience():
    killer, fleet = Killer(), fleet_of(2, batch_s=0.0005)
    with federation.serve(experiment(clients=2, participation=1.0), Machine(), fleet, watch=killer) as server:
        killer.server = server
        for link in server.links.values():
            link._patience_s = 2.0
        killer.aim("round 1 of", [0], signal.SIGSTOP)
        run = federation.play(server, "compute_and_wait", 2)
        assert server.lost == {0: "no answer within 2 s"}
        assert run.record["cohorts"] == [[1], [1]]
    assert all(process.exitcode is not None for process in server.processes)
    assert any("client 0 is lost" in text for text in killer.said)


def test_a_client_that_cannot_start_ends_the_run_with_its_name(monkeypatch):
    monkeypatch.setattr(federation, "client_process", dies_at_once)
    with (
        pytest.raises(federation.Stopped, match=r"client \d did not start: "),
        federation.serve(experiment(clients=2), Machine(), fleet_of(2), patience_s=4.0),
    ):
        raise AssertionError("must not be reached")


def dies_at_once(me: int, *rest: object) -> None:
    del rest
    os._exit(3)


def test_nothing_listens_beyond_the_loopback(runs):
    """Every TCP socket that listens on behalf of the server or a client is bound to 127.0.0.1."""
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("needs /proc/net/tcp")
    _, server, _ = runs
    mine = set()
    for pid in [os.getpid(), *(process.pid for process in server.processes)]:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(entry) if entry.is_symlink() else ""
            if target.startswith("socket:["):
                mine.add(target[8:-1])
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[9] in mine]
    assert listening
    assert all(address.startswith("0100007F:") for address in listening)
