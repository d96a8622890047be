"""(Experiment, Machine) -> result: builds the world, plays the rounds, keeps checkpoints, publishes once.

Killed at any moment and started again, a run goes on from its checkpoint; the result equals the uninterrupted one byte
for byte, provenance aside.
"""

import ctypes
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pflbench import data, engine, models, registry, store, tree
from pflbench.batchnorm import LocalStatistics
from pflbench.budget import Placement, budget, lines, place
from pflbench.cutoff import cut
from pflbench.data import Samples
from pflbench.errors import BadInput
from pflbench.evaluation import Scores, evaluate
from pflbench.graphs import CudaRecorder
from pflbench.partitions import hold_out, local_tests, partition, user_tests
from pflbench.placement import bank_at, memory, pixels_at, sizes_of
from pflbench.plan import MEANING, Experiment, Machine, complete, decay_of
from pflbench.splits import import_split
from pflbench.store import Record
from pflbench.streams import seed_of, stream
from pflbench.task import Network, Pixels, make_task
from pflbench.timeline import draw_fleet, load_fleet

PACKAGES = ("torch", "numpy", "scikit-learn", "safetensors")


class Interrupted(Exception):
    """The run was asked to stop and has stopped after a whole round, with a checkpoint."""


@dataclass(frozen=True)
class Progress:
    """After round ``round`` of ``rounds``: latest accuracies, as fractions, where known."""

    round: int
    rounds: int
    generic: float | None
    personal: float | None


@dataclass(frozen=True)
class Outcome:
    """A finished experiment and where its record lies; ``cached`` if it was there before."""

    record: Record
    path: Path
    cached: bool


@dataclass
class Journal:
    """What a record will hold, filled round by round."""

    rounds: list[int] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    costs: list[engine.Cost] = field(default_factory=list)
    diverged: int | None = None
    seconds: float = 0.0

    def note(self) -> Record:
        """As plain JSON, for a checkpoint."""
        return {**vars(self), "scores": [list(s) for s in self.scores], "costs": [list(c) for c in self.costs]}

    @classmethod
    def of(cls, note: Record) -> "Journal":
        scores = [Scores(*row) for row in note["scores"]]
        return cls(**{**note, "scores": scores, "costs": [engine.Cost(*row) for row in note["costs"]]})


def run(experiment: Experiment, machine: Machine, watch: Callable[[Progress], None] = lambda _: None) -> Outcome:
    """The result of ``experiment``: read if it is there, resumed or computed if not.

    Raises BadInput for anything that cannot be used, before a file is written; Interrupted after Ctrl-C or SIGTERM.
    """
    experiment = complete(experiment, machine.data_root)
    path = store.result_path(machine.results, experiment.method.name, experiment.address)
    kept = path.with_suffix(".safetensors")
    if path.exists() and (kept.exists() or not machine.keep_models):
        return Outcome(store.load(path), path, cached=True)
    device = pick_device(machine.device)
    world, samples = build(experiment, machine, device)
    store.writable(machine.results)
    checkpoint = path.with_name(f".{experiment.address}.checkpoint")
    federation, journal = engine.start(world), Journal()
    done = 0
    if checkpoint.exists():
        leaves, note = store.load_state(checkpoint)
        federation = resume(federation, leaves, checkpoint)
        done, journal = note["done"], Journal.of(note["journal"])
    began, saved, points = time.monotonic(), time.monotonic(), set(experiment.evaluated())
    with stopping() as stop:
        for round in range(done, experiment.rounds):
            federation, cost = engine.play(world, federation, round)
            journal.costs.append(cost)
            if round + 1 in points:
                journal.rounds.append(round + 1)
                journal.scores.append(evaluate(world, federation, round))
                if journal.diverged is None and not engine.finite(federation):
                    journal.diverged = round + 1
            watch(progress(world, journal, round + 1, experiment.rounds))
            last = round + 1 == experiment.rounds
            if not last and (stop() or time.monotonic() - saved >= machine.checkpoint_s):
                saved = time.monotonic()
                journal.seconds += saved - began
                began = saved
                store.save_state(
                    checkpoint, tree.flatten(tuple(federation)), {"done": round + 1, "journal": journal.note()}
                )
            if stop() and not last:
                raise Interrupted(
                    f"stopped after round {round + 1} of {experiment.rounds}; the same command goes on from there"
                )
    journal.seconds += time.monotonic() - began
    record = make_record(experiment, machine, world, samples, federation, journal)
    if machine.keep_models:
        store.save_state(kept, tree.flatten({"w": federation.w, "c": federation.c}), {"address": experiment.address})
    store.publish(path, record)
    checkpoint.unlink(missing_ok=True)
    return Outcome(record, path, cached=False)


def build(experiment: Experiment, machine: Machine, device: torch.device) -> tuple[engine.World, Samples]:
    """The world of a resolved experiment: data, split, model, first weights, all on ``device``."""
    set_arithmetic(experiment.precision, machine.deterministic)
    samples = data.load(experiment.dataset.name, machine.data_root, experiment.dataset.fields)
    train, test, validation = split(experiment, samples)
    seed = experiment.seed
    side, least = min(samples.train_x.shape[2:]), models.SMALLEST[experiment.model.name]
    if side < least:
        raise BadInput(
            "model", experiment.model.name, f"needs images of {least}x{least} or more; {samples.name} has {side}x{side}"
        )
    shape = (int(samples.train_x.shape[1]), int(samples.train_x.shape[2]), int(samples.train_x.shape[3]))
    model = models.build(
        experiment.model.name, experiment.model.fields, shape, samples.classes, seed_of(seed, "weights")
    )
    network = Network(model.module, experiment.precision)
    method = registry.method_class(experiment.method.name)(**experiment.method.fields)
    if experiment.batchnorm == "local":
        method = LocalStatistics(method)
    task = make_task(
        model,
        network,
        device,
        epochs=experiment.epochs,
        lr=experiment.lr,
        momentum=experiment.momentum,
        weight_decay=experiment.weight_decay,
    )
    constants = [
        torch.tensor(values, dtype=network.dtype, device=device).view(-1, 1, 1)
        for values in (samples.mean, samples.std)
    ]
    uniform = experiment.weighting == "uniform"
    world = engine.World(
        method=method,
        task=task,
        network=network,
        pixels=Pixels(samples.train_x, samples.train_y, constants[0], constants[1], apart=True),
        official=Pixels(samples.test_x, samples.test_y, constants[0], constants[1], apart=True),
        train=train,
        test=test,
        validation=validation,
        weight=np.array([1.0 if uniform else float(len(part)) for part in train]),
        cohort_size=experiment.cohort_size,
        batch_size=experiment.batch_size,
        seed=seed,
        decay=decay_of(experiment),
        engine=choose_engine(machine.engine, device, model.convolutional),
        chunk=machine.chunk,
        threads=machine.threads if device.type == "cpu" else 1,  # a GPU is kept busy by one
        augment=experiment.augment,
        recorder=CudaRecorder(device) if device.type == "cuda" and machine.graphs else None,
    )
    world = placed(world, samples, model, machine)
    if experiment.cut is not None:
        fleet, rng = draw_fleet(load_fleet(experiment.cut.name), world.clients, **experiment.cut.fields)
        world = cut(world, experiment.rounds, fleet, rng)
    return world, samples


def placed(world: engine.World, samples: Samples, model: models.Model, machine: Machine) -> engine.World:
    """``world`` with its data and client states where there is room for them, or where ``machine`` wants them."""
    need = budget(sizes_of(world, samples, model))
    auto = place(need, *memory(world.pixels.device))
    where = Placement(
        auto.data if machine.place_data == "auto" else machine.place_data,
        auto.bank if machine.place_clients == "auto" else machine.place_clients,
    )
    move = partial(pixels_at, where.data)
    return replace(
        world,
        pixels=move(world.pixels.x, world.pixels.y, world.pixels.mean, world.pixels.std),
        official=move(world.official.x, world.official.y, world.official.mean, world.official.std),
        bank=bank_at(where.bank, machine.results),
        plan=tuple(lines(need, where)),
    )


Parts = list[np.ndarray]


def split(experiment: Experiment, samples: Samples) -> tuple[Parts, Parts, Parts]:
    """Train, local-test and validation indices per client; validation is empty if none is held out."""
    labels, official = samples.train_y.numpy(), samples.test_y.numpy()
    chosen, seed = experiment.partition, experiment.partition_seed or 0
    if chosen.name == "file":
        found = import_split(Path(str(chosen.fields["path"])), len(labels), len(official), samples.name)
        train, test = list(found.train), list(found.test)
        if len(train) != experiment.clients:
            raise BadInput("clients", experiment.clients, f"must be {len(train)}, as in the partition file")
    else:
        users, test_users = (
            None if them is None else them.numpy() for them in (samples.train_users, samples.test_users)
        )
        column = chosen.fields.get("column") or samples.user
        if column != samples.user:
            known = f"users of {samples.user}" if samples.user else "no users"
            raise BadInput(
                "partition.column", column, f"{samples.name} was prepared with {known}; prepare user={column}"
            )
        rng = stream(seed, "partition")
        train = partition(labels, experiment.clients, chosen.name, chosen.fields, rng, users)
        if chosen.name == "natural" and users is not None and test_users is not None:
            test = user_tests(train, users, test_users)
        else:
            test = local_tests(labels, train, official, stream(seed, "local tests"))
    if not experiment.validation:
        return train, test, []
    train, validation = hold_out(train, labels, experiment.validation, stream(seed, "validation"))
    return train, test, validation


def choose_engine(asked: str, device: torch.device, convolutional: bool) -> Literal["loop", "vmap"]:
    """A fixed rule, never a timing: vmap everywhere but for convolutions on a CPU."""
    if asked == "loop" or (asked == "auto" and device.type == "cpu" and convolutional):
        return "loop"
    return "vmap"


def pick_device(asked: str) -> torch.device:
    """``auto`` is CUDA where there is one. Raises BadInput for a device that is not there."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise BadInput("device", asked, "must be auto, cpu or a CUDA device that is there, such as cuda:0") from None
    return device


def set_arithmetic(precision: str, deterministic: bool = True) -> None:
    """Deterministic kernels unless asked; TF32 only where the experiment asks for it; one core per computation."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("error" if deterministic else "default")  # not by its usual name: that imports
    # the compiler, two seconds of every start
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.set_num_threads(1)  # called even where it is 1 already: MKL takes another path before the first call
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Tells glibc to keep what is freed: a training step otherwise returns its gradients to the kernel and faults them
    in again, a third of a CNN's step on a CPU. Does nothing on other systems; changes no number."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD: the largest that glibc takes
    mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def resume(blank: engine.Federation, leaves: dict[str, torch.Tensor], path: Path) -> engine.Federation:
    """``leaves`` in the structure of ``blank``. Raises BadInput if they do not fit."""
    wanted = tree.flatten(tuple(blank))
    if {name: leaf.shape for name, leaf in wanted.items()} != {name: leaf.shape for name, leaf in leaves.items()}:
        raise BadInput("checkpoint", path, "belongs to another version of this method; delete it to start over")
    for name, leaf in wanted.items():  # in place: a bank stays where it was put
        leaf.copy_(leaves[name])
    return blank


def progress(world: engine.World, journal: Journal, round: int, rounds: int) -> Progress:
    """The latest accuracies: GM on the official test set, PM over all local tests."""
    if not journal.scores:
        return Progress(round, rounds, None, None)
    scores, tested = journal.scores[-1], sum(len(part) for part in world.test)
    generic = None if scores.official is None else scores.official / len(world.official.y)
    return Progress(round, rounds, generic, None if scores.personal is None else sum(scores.personal) / tested)


def make_record(
    experiment: Experiment,
    machine: Machine,
    world: engine.World,
    samples: Samples,
    federation: engine.Federation,
    journal: Journal,
) -> Record:
    """The result as plain JSON: raw counts and integers; only ``provenance`` differs between two runs."""
    curve: dict[str, Any] = {"rounds": journal.rounds}
    for name in Scores._fields:
        rows = [getattr(scores, name) for scores in journal.scores]
        curve[name] = None if rows[0] is None else rows
    return {
        "address": experiment.address,
        "meaning": MEANING,
        "experiment": experiment.model_dump(),
        "rounds": experiment.rounds,
        "diverged": journal.diverged,
        "clients": {
            "train": [len(part) for part in world.train],
            "test": [len(part) for part in world.test],
            "validation": [len(part) for part in world.validation],
            "official": len(samples.test_y),
        },
        "cohorts": [cost.cohort for cost in journal.costs],
        "costs": {
            "contribute": [cost.contribute for cost in journal.costs],
            "personalise": [cost.personalise for cost in journal.costs],
            "up": journal.costs[0].up,
            "down": journal.costs[0].down,
            "bytes_per_number": 4,
        },
        "curve": curve,
        "fingerprint": store.fingerprint(tree.flatten(tuple(federation))),
        "provenance": provenance(machine, world, samples, journal.seconds),
    }


def provenance(machine: Machine, world: engine.World, samples: Samples, seconds: float) -> Record:
    """Where a result came from; no path, host or user name."""
    device = world.pixels.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "seconds": round(seconds, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": f"{device.type}: {name}",
        "engine": world.engine,
        "graphs": world.recorder is not None,
        "chunk": world.chunk,
        "threads": world.threads,
        "deterministic": machine.deterministic,
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "data": samples.source,
        "memory": list(world.plan),
    }


def commit() -> str | None:
    """The commit of this code, with ``+`` if the tree differs from it; None outside a checkout."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if dirty.strip() else "")


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a flag that is read between rounds; the second acts at once."""
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("\nstopping after this round; once more to stop now (the last checkpoint stays)", file=sys.stderr)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread
        before = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
