"""A real federation on one machine: a server process and C client processes that talk TCP over the loopback (gloo).

It shows that the clock (``timeline``) tells the truth. The functions of the method and every draw (cohorts, batches, first
weights) are those of the simulated run, so the learned numbers are too: on one machine bit for bit with the engine
``loop``. A client holds its own samples only. What is real: the computation, the bytes, the sockets, the overlap of
upload and personal stage, the wall clock. What is emulated, and each only ever by waiting:

* links: the sender lets bytes go at the fleet's rate (``link``);
* devices: a stage lasts at least its batches times the fleet's seconds per batch (0: as fast as the machine computes),
  so that many devices fit on few cores; ``rehearsal.late`` is the share of stages that the machine was too slow for.

The jitter and drop-outs of a fleet are not emulated. Only a client's own personal stage holds it up: compare with the
clock's ``block="client"``. Every wait is bounded; a client that dies or does not answer is left out from then on.
"""

import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pflbench.clock.fleet import Fleet, Floats
from pflbench.clock.timeline import PROTOCOLS, Protocol, Round, Timeline
from pflbench.core import tree
from pflbench.core.measures import Record
from pflbench.core.tree import Tree
from pflbench.engine import engine
from pflbench.engine.engine import Federation, Stage, StageFunction, World
from pflbench.experiment.build import build
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.live.shaped_link import Broken, Frame, Link, pack, sleep_until, unpack

HOUR = 3600.0  # seconds a client waits for a server that lives but says nothing; one that dies is noticed at once
READY, BEGIN, ROUND, REPORT, STOP = range(5)  # what a frame is for
LOG = ("left", "arrived", "generic", "generic_end", "personal", "personal_end")  # a client's log, per round, in seconds


class Stopped(Exception):
    """The federation cannot go on: a client did not start, or none is left."""


# A client


def own_world(world: World, client: int) -> World:
    """The world of one client: its own samples, under their own numbers, and nobody else's."""
    mine, nobody = world.train[client], np.zeros(0, dtype=np.int64)
    pixels = replace(world.pixels, x=world.pixels.x[mine], y=world.pixels.y[mine])
    none = replace(world.official, x=world.official.x[:0], y=world.official.y[:0])
    train = [np.arange(len(mine)) if k == client else nobody for k in range(world.clients)]
    return replace(world, pixels=pixels, official=none, train=train, test=[], validation=[])


def client_process(
    me: int, experiment: Experiment, machine: Machine, fleet: Fleet, folder: Path, patience: float
) -> None:
    """The life of a client: connect, build its world, follow orders. Whatever goes wrong closes the connection at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    try:
        link = Link(folder, me, 1, patience)
        world = own_world(build(resolve(experiment, machine.data_root), machine, torch.device("cpu"))[0], me)
        link.send(READY)
        follow(world, me, fleet, link)
    except Broken:
        os._exit(1)  # the server is gone or has given this client up
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def follow(world: World, me: int, fleet: Fleet, link: Link) -> None:
    """Orders one after another until STOP. The courier sends and receives while this thread computes."""
    work, method = world.method.work(world.task), world.method
    first = engine.start(world)
    mine = tree.rows(first.c, torch.tensor([me]))
    c, overlap = mine, False
    log: list[list[float]] = []

    def compute(
        name: Stage, function: StageFunction, w: Tree, epochs: int, least_s: float
    ) -> tuple[Tree, float, float]:
        start = time.monotonic()
        result = engine.stage(world, name, function, w, c, np.array([me]), frame.number, epochs)
        sleep_until(start + least_s)
        return result, start, time.monotonic()

    def exchange(*answer: Any) -> Frame:
        if answer:
            link.send(*answer, bps=float(fleet.up_bps[me]), latency_s=float(fleet.latency_s[me]))
        return link.receive(HOUR)

    with ThreadPoolExecutor(1) as courier:
        order = courier.submit(exchange)
        while (frame := order.result()).what != STOP:
            if frame.what == BEGIN:
                c, log, overlap = tree.clone(mine), [], PROTOCOLS[frame.number] == "wait_free"
                link.send(READY)
                order = courier.submit(exchange)
            elif frame.what == REPORT:
                link.send(REPORT, payload=pack((torch.tensor(log, dtype=torch.float64), c)))
                order = courier.submit(exchange)
            else:
                w = unpack(frame.payload, first.w)
                generic_batches, personal_batches = engine.charge(world, me, frame.number)
                device_s = generic_batches * fleet.contribute_s[me]
                (upload, c), *generic = compute("contribute", method.contribute, w, work.contribute, device_s)
                answer = (ROUND, frame.number, pack(upload))
                if overlap:
                    order = courier.submit(exchange, *answer)
                device_s = personal_batches * fleet.personalise_s[me]
                c, *personal = compute("personalise", method.personalise, w, work.personalise, device_s)
                if not overlap:
                    order = courier.submit(exchange, *answer)
                log.append([frame.left, frame.arrived, *generic, *personal])
    link.send(READY)


# The server


@dataclass
class Server:
    """The server's end of a running federation. lost: client -> why it is left out. watch: is told what happens."""

    world: World
    fleet: Fleet
    links: dict[int, Link]
    processes: list[ForkServerProcess]
    pool: ThreadPoolExecutor
    watch: Callable[[str], None]
    lost: dict[int, str] = field(default_factory=dict)

    def ask(self, client: int, *frame: Any) -> Frame | None:
        """Sends a frame to a client and returns its answer; None, and the client is lost, if the link breaks."""
        bps, latency_s = float(self.fleet.down_bps[client]), float(self.fleet.latency_s[client])
        try:
            self.links[client].send(*frame, bps=bps, latency_s=latency_s)
            return self.links[client].receive()
        except Broken as error:
            self.lost[client] = str(error)
            self.watch(f"client {client} is lost: {error}; going on without it")
            return None

    def present(self, clients: Any) -> list[int]:
        """Those of ``clients`` that are not lost. Raises Stopped if nobody is."""
        here = [int(client) for client in clients if int(client) not in self.lost]
        if not here:
            raise Stopped("no client is left; " + ", ".join(f"{k}: {why}" for k, why in sorted(self.lost.items())))
        return here

    def ask_all(self, clients: list[int], *frame: Any) -> dict[int, Frame]:
        """The answers of several clients, asked at the same time, by client."""
        answers = self.pool.map(lambda client: self.ask(client, *frame), clients)
        return {client: frame for client, frame in zip(clients, answers, strict=True) if frame is not None}


@dataclass(frozen=True, eq=False)
class Live:
    """One real run: what was learned, when what happened, and what the clock reads of a result, cohorts and costs."""

    federation: Federation
    timeline: Timeline
    record: Record


@contextmanager
def serve(
    experiment: Experiment,
    machine: Machine,
    fleet: Fleet,
    *,
    patience_s: float = 60.0,
    watch: Callable[[str], None] = lambda _: None,
) -> Iterator[Server]:
    """One client process per client of the experiment, connected and ready; none is left when this is over.

    patience_s: the longest wait for one message, the computation before it included.
    """
    resolved = resolve(experiment, machine.data_root)
    experiment = resolved.experiment
    machine = replace(machine, device="cpu", engine="loop")
    world, _ = build(resolved, machine, torch.device("cpu"))
    context = get_context("forkserver")  # torch is imported once, and no thread is forked
    context.set_forkserver_preload([__name__, f"pflbench.data.sets.{experiment.dataset.name}"])
    everyone = range(world.clients)
    with tempfile.TemporaryDirectory() as folder:
        rest = (experiment, machine, fleet, Path(folder), patience_s)
        processes = [context.Process(target=client_process, args=(k, *rest), daemon=True) for k in everyone]
        pool = ThreadPoolExecutor(world.clients)
        server: Server | None = None
        try:
            for process in processes:
                process.start()
            watch(f"{world.clients} clients started")
            links = dict(zip(everyone, pool.map(lambda k: meet(Path(folder), k, patience_s), everyone), strict=True))
            server = Server(world, fleet, links, processes, pool, watch)
            yield server
            server.ask_all([k for k in everyone if k not in server.lost], STOP)
            for process in processes:
                process.join(1.0)
        finally:
            if server is not None:
                server.watch = lambda _: None  # whom this ends is not lost
            for process in processes:
                if process.pid is not None:
                    process.kill()
                    process.join()
            pool.shutdown()


def meet(folder: Path, client: int, patience_s: float) -> Link:
    """The link to a client that is ready."""
    try:
        link = Link(folder, client, 0, patience_s)
        link.receive()
    except Broken as error:
        raise Stopped(f"client {client} did not start: {error}") from None
    return link


def play(server: Server, protocol: Protocol, rounds: int) -> Live:
    """A run from the first state on, measured. Raises Stopped when no client is left."""
    world, method = server.world, server.world.method
    w, bank = engine.start(world)
    like = engine.upload_of_nothing(world, w, bank)
    server.ask_all(server.present(range(world.clients)), BEGIN, PROTOCOLS.index(protocol))
    visits: list[dict[int, Frame]] = []
    closes = [time.monotonic()]
    for round in range(rounds):
        server.watch(f"{protocol}, round {round + 1} of {rounds}")
        visits.append(server.ask_all(server.present(engine.cohort_of(world, round)), ROUND, round, pack(w)))
        here = server.present(visits[-1])
        uploads = tree.stack([unpack(visits[-1][client].payload, like) for client in here])
        weight = world.weight[here] / world.weight[here].sum()
        w = tree.clone(method.merge(w, tree.mean(uploads, torch.as_tensor(weight))))
        if len(pack(like)):
            sleep_until(max(frame.arrived for frame in visits[-1].values()) + server.fleet.aggregation_s)
        closes.append(time.monotonic())
    logs: dict[int, Floats] = {}
    for client, frame in server.ask_all(server.present(range(world.clients)), REPORT).items():
        index, took_part = torch.tensor([client]), sum(client in visit for visit in visits)
        blank = torch.zeros(took_part, len(LOG), dtype=torch.float64)
        log, c = unpack(frame.payload, (blank, tree.rows(bank, index)))
        logs[client] = log.numpy()
        tree.put_rows(bank, index, c)
    record = costs(world, w, like, [sorted(visit) for visit in visits])
    return Live(Federation(w, bank), measured(protocol, record, closes, visits, logs), record)


def simulated(world: World, rounds: int) -> Federation:
    """What the same experiment learns without any process, socket or clock."""
    federation = engine.start(world)
    for round in range(rounds):
        federation, _ = engine.play(world, federation, round)
    return federation


def apart(first: Federation, second: Federation) -> float:
    """The largest difference between any two learned numbers; 0 only if they are equal bit for bit."""
    pairs = [tree.flatten(tuple(federation)) for federation in (first, second)]
    return max(float((leaf.double() - pairs[1][name].double()).abs().max()) for name, leaf in pairs[0].items())


def costs(world: World, w: Tree, like: Tree, cohorts: list[list[int]]) -> Record:
    """What the clock reads of a record, for the clients that took part in each round."""
    rows = [[engine.charge(world, client, round) for client in cohort] for round, cohort in enumerate(cohorts)]
    sizes = {leaf.element_size() for leaf in tree.flatten((w, like)).values()}
    return {
        "experiment": {"clients": world.clients},
        "cohorts": cohorts,
        "costs": {
            "contribute": [[generic for generic, _ in row] for row in rows],
            "personalise": [[personal for _, personal in row] for row in rows],
            "up": tree.numbers(like),
            "down": tree.numbers(w),
            "bytes_per_number": max(sizes, default=4),
        },
    }


# What was measured


def measured(
    protocol: Protocol,
    record: Record,
    closes: list[float],
    visits: list[dict[int, Frame]],
    logs: dict[int, Floats],
) -> Timeline:
    """The run on the clock's own form, in seconds since its first download. Clients lost on the way left no log."""
    origin, count = closes[0], dict.fromkeys(logs, 0)
    rounds: list[Round] = []
    over = 0.0
    for visit, closed in zip(visits, np.array(closes[1:]) - origin, strict=True):
        who = [client for client in visit if client in logs]
        rows = np.array([logs[client][count[client]] for client in who]).reshape(-1, len(LOG)) - origin
        sent = np.array([(visit[client].left, visit[client].arrived) for client in who]).reshape(-1, 2) - origin
        complete = max(frame.arrived for frame in visit.values()) - origin
        wait = np.stack([sent[:, 1], np.full(len(who), closed)], axis=1)
        over = max(over, float(closed), float(rows[:, 5].max(initial=0.0)))
        stages = {
            "download": rows[:, 0:2],
            "generic": rows[:, 2:4],
            "upload": sent,
            "wait": wait,
            "personal": rows[:, 4:6],
        }
        rounds.append(Round(np.array(who), aggregation=np.array([complete, closed]), end=over, **stages))
        for client in who:
            count[client] += 1
    charged = record["costs"]
    messages = charged["bytes_per_number"] * sum(len(visit) for visit in visits)
    return Timeline(protocol, "live", tuple(rounds), messages * charged["down"], messages * charged["up"])
