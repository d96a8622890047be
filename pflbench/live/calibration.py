"""Seconds per batch of a method's two stages on the machine at hand, as an entry of a fleet file."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

import pflbench
from pflbench.core import tree
from pflbench.core.errors import BadInput
from pflbench.engine import engine
from pflbench.experiment.build import build, pick_device
from pflbench.experiment.experiment import Choice, Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.provenance import processor
from pflbench.experiment.resolve import resolve

WARM = 2  # stages run before any is measured
STAGES: tuple[engine.Stage, ...] = ("contribute", "personalise")


@dataclass(frozen=True)
class Seconds:
    """Seconds per batch over repeats."""

    median: float
    low: float
    high: float


def measure(experiment: Experiment, machine: Machine, *, batches: int, repeats: int) -> dict[str, Seconds]:
    """Stage -> seconds per batch of one client on one core or GPU, ``batches`` full ones a pass; 0 for an empty stage."""
    one = {"clients": 1, "participation": 1.0, "partition": Choice(name="iid")}
    device = pick_device(machine.device)
    world, _ = build(
        resolve(experiment.model_copy(update=one), machine.data_root),
        replace(machine, engine="loop", threads=1),
        device,
    )
    most = len(world.train[0]) // world.batch_size
    if batches > most:
        raise BadInput("batches", batches, f"the data set has {most} full batches of {world.batch_size}")
    world = replace(world, train=[world.train[0][: batches * world.batch_size]])
    w, c = engine.start(world)
    work = world.method.work(world.task)
    wait: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    # the personal stage starts from what the generic one has left at the client
    generic = engine.stage(
        world, "contribute", world.method.contribute, w, tree.clone(c), np.array([0]), 0, work.contribute
    )
    before = {"contribute": c, "personalise": generic[1]}

    def seconds(stage: engine.Stage) -> Seconds:
        function, epochs = getattr(world.method, stage), getattr(work, stage)
        charged = epochs * batches * (work.gradients if stage == "contribute" else 1)
        if not epochs:
            return Seconds(0.0, 0.0, 0.0)
        lengths = []
        for round in range(WARM + repeats):
            wait()
            start = time.perf_counter()
            engine.stage(world, stage, function, w, tree.clone(before[stage]), np.array([0]), round, epochs)
            wait()
            lengths.append((time.perf_counter() - start) / charged)
        kept = np.array(lengths[WARM:])
        return Seconds(float(np.median(kept)), float(kept.min()), float(kept.max()))

    return {stage: seconds(stage) for stage in STAGES}


def entry(
    experiment: Experiment,
    machine: Machine,
    found: dict[str, Seconds],
    like: dict[str, Any],
    *,
    batches: int,
    repeats: int,
) -> dict[str, Any]:
    """The description of fleet ``like`` with the seconds per batch that were found; all else is as in ``like``."""
    experiment = resolve(experiment, machine.data_root).experiment
    what = f"{experiment.method.name}, {experiment.model.name}, {experiment.dataset.name}, batches of {experiment.batch_size}"
    where = hardware(pick_device(machine.device))
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy"))
    day = datetime.now(UTC).date().isoformat()

    def number(stage: str, seconds: Seconds) -> dict[str, Any]:
        source = (
            f"measured: `pflbench calibrate`, {stage} stage of {what}, {experiment.precision}, {where}; median of {repeats} "
            f"repeats of {batches} batches a pass, {seconds.low:.3g} to {seconds.high:.3g} s; pflbench "
            f"{pflbench.__version__}, Python {platform.python_version()}, {versions}; {day}"
        )
        return {"value": float(f"{seconds.median:.4g}"), "source": source}

    measured = {f"{stage}_s": number(stage, seconds) for stage, seconds in found.items()}
    about = f"fleet {like['name']} with the seconds per batch of {what}, measured on {where}"
    return {**{key: value for key, value in like.items() if key != "name"}, "about": about, **measured}


def hardware(device: torch.device) -> str:
    """The name of the processor, and that its cores are used one at a time."""
    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    return f"one core of {processor()}"
