"""What a study will cost on the machine at hand: a few rounds of each kind of run are timed, the rest is arithmetic."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from pflbench.engine import engine
from pflbench.engine.engine import World
from pflbench.engine.evaluation import evaluate
from pflbench.engine.memory import Part
from pflbench.experiment.build import build, pick_device
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.study.workload import Needed, Workload

CLIENTS, BATCHES, COHORT = 10, 4, 2  # what is timed where a client's cost does not depend on the others
ENOUGH = 0.5  # seconds of rounds, after which no more are timed
DRAWING = 1.6  # a figure's or the report's process, in starts of the libraries that draw
RUNS, DRAWS = (
    "import pflbench.experiment.run",
    "import pflbench.report.style, matplotlib.pyplot, pandas, seaborn, scipy.stats",
)
Memory = dict[str, Part]


@dataclass(frozen=True)
class Forecast:
    """seconds: of computation for what is missing, on one core or GPU. disk: bytes of the results."""

    runs: int
    cached: int
    seconds: float
    disk: int


@dataclass(frozen=True)
class Bill:
    """figures: per figure, and in total under ``all``. start_s: to start a process that runs; draw_s: for one that draws.
    process: bytes of one process. memory: per kind of experiment, what the missing runs hold and where; the largest.
    """

    figures: dict[str, Forecast]
    start_s: float
    draw_s: float
    process: int
    memory: dict[str, Memory]

    def wall_s(self, processes: int, drawings: int, cores: int) -> float:
        """Seconds by the clock, ``cores`` at a time: so many processes that run, equal shares of the work, as many waves
        of them as it takes, then so many that draw."""
        running = self.figures["all"].seconds / max(1, processes) + self.start_s
        return -(-processes // cores) * running + drawings * self.draw_s / cores


def forecast(
    workload: Workload, machine: Machine, rounds: int = 3, watch: Callable[[int, int], None] = lambda done, total: None
) -> Bill:
    """The bill of what is missing, after at most ``rounds`` rounds of each kind of run. ``watch(done, total)``: runs."""
    missing = [needed for needed in workload.needed if not needed.done(machine.results)]
    device = pick_device(machine.device)
    loads: dict[str, float] = {}
    speeds: dict[str, tuple[float, float, float]] = {}
    cost: dict[str, float] = {}
    memory: dict[str, Memory] = {}
    for number, needed in enumerate(missing):
        experiment, kind = needed.experiment, kind_of(needed.experiment)
        place = _key(experiment, method=False)
        if place not in loads or _key(experiment) not in speeds:
            began = time.monotonic()
            world, _ = build(resolve(experiment, machine.data_root), machine, device)
            loads[place] = sum(_load(world, round) for round in range(experiment.rounds))
            if _key(experiment) not in speeds:
                speeds[_key(experiment)] = (time.monotonic() - began, *_speed(world, rounds))
                memory[kind] = _larger(memory.get(kind, {}), world.held)
        build_s, load_s, evaluation_s = speeds[_key(experiment)]
        cost[needed.address] = build_s + load_s * loads[place] + evaluation_s * len(experiment.evaluated())
        if "bands" in needed.extras:  # the run is played once more
            cost[needed.address] += build_s + load_s * loads[place]
        watch(number + 1, len(missing))
    process = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if device.type == "cuda":
        process = torch.cuda.max_memory_allocated(device)

    def sum_of(needed: list[Needed]) -> Forecast:
        left = [each for each in needed if each.address in cost]
        seconds = sum(cost[each.address] for each in left)
        disk = sum(_disk(each.experiment) for each in left)
        return Forecast(len(needed), len(needed) - len(left), seconds, disk)

    figures = {name: sum_of([each for each in workload.needed if name in each.figures]) for name in workload.manifests}
    return Bill(
        {**figures, "all": sum_of(list(workload.needed))}, _start(RUNS), DRAWING * _start(DRAWS), process, memory
    )


def kind_of(experiment: Experiment) -> str:
    """Data set, model and number of clients: what memory depends on, the method aside."""
    return f"{experiment.dataset.name}, {experiment.model.name}, {experiment.clients} clients"


def _key(experiment: Experiment, method: bool = True) -> str:
    """Runs of one key cost the same per step (``method``), or have the same cohorts and client sizes (not ``method``)."""
    if not method:
        return experiment.model_copy(update={"method": "", "eval_every": 1}).model_dump_json(warnings=False)
    fields = {name: v != 0 if isinstance(v, float) else v for name, v in experiment.method.fields.items()}
    chosen = experiment.method.model_copy(update={"fields": fields})
    free = {"method": chosen, "seed": 0, "partition_seed": 0, "rounds": 1, "eval_every": 1}
    return experiment.model_copy(update=free).model_dump_json()


def _load(world: World, round: int) -> float:
    """What a round costs, in the units of the engine's own rule."""
    steps = np.array([-(-len(world.train[k]) // world.batch_size) for k in engine.cohort_of(world, round)])
    if world.engine == "loop":
        return float(steps.sum())
    return float(sum(steps[group].max() * (engine.OVERHEAD + len(group)) for group in engine.groups_of(world, steps)))


def _speed(world: World, rounds: int) -> tuple[float, float]:
    """Seconds per unit of load, and per evaluation, once warm."""
    small = _sample(world) if world.engine == "loop" and world.clients > CLIENTS else world
    federation, _ = engine.play(small, engine.start(small), 0)
    load, began, played = 0.0, time.monotonic(), 0.0
    for round in range(1, 1 + rounds):
        federation, _ = engine.play(small, federation, round)
        load, played = load + _load(small, round), time.monotonic() - began
        if played > ENOUGH:
            break
    if small is world:
        evaluate(world, federation, 0)
    began = time.monotonic()
    evaluate(small, federation, rounds)
    evaluation, rest = time.monotonic() - began, 0
    if small is not world:  # clients' evaluations cost what their number says, and what they train for it on top
        evaluation *= world.clients / small.clients
        rest = _steps(world) - _steps(small) * world.clients // small.clients
    work = world.method.work(world.task)
    passes = work.contribute * work.gradients + work.personalise
    return played / load, evaluation + rest * work.adapt / max(1, passes) * played / load


def _sample(world: World) -> World:
    """A few clients of all sizes with a few batches each, tested on their share of the test set."""
    order = np.argsort([len(part) for part in world.train], kind="stable")
    chosen = order[np.linspace(0, world.clients - 1, CLIENTS).round().astype(int)]
    tested = max(1, len(world.official.y) * CLIENTS // world.clients)
    official = replace(world.official, x=world.official.x[:tested], y=world.official.y[:tested])
    return replace(
        world,
        train=[world.train[k][: BATCHES * world.batch_size] for k in chosen],
        test=[world.test[k] % tested for k in chosen],
        validation=[world.validation[k] for k in chosen if len(world.validation)],
        weight=world.weight[chosen],
        cohort_size=min(COHORT, world.cohort_size),
        official=official,
        cutoff=None,
    )


def _steps(world: World) -> int:
    return sum(-(-len(part) // world.batch_size) for part in world.train)


def _start(code: str) -> float:
    """Seconds of a process that runs ``code``."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - began


def _larger(one: Memory, other: Mapping[str, Part]) -> Memory:
    """Part by part, whichever is larger."""
    return {part: max(one.get(part, other[part]), other[part]) for part in other}


def _disk(experiment: Experiment) -> int:
    """Bytes of a result: counts per client and evaluation, integers per cohort member and round, the rest."""
    counts = 2 * 4 * len(experiment.evaluated()) * experiment.clients
    return counts + 10 * experiment.rounds * experiment.cohort_size + 2500
