"""Experiment -> world: arithmetic, data, split, model, first weights and where everything lies."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from pflbench.core.errors import BadInput
from pflbench.core.streams import seed_of, stream
from pflbench.data.partitions import hold_out, local_tests, partition, user_tests
from pflbench.data.samples import Samples
from pflbench.data.splits import import_split
from pflbench.engine import engine
from pflbench.engine.captured import CudaRecorder
from pflbench.engine.memory import Placement, budget, parts, place
from pflbench.engine.placement import bank_at, memory, pixels_at, sizes_of
from pflbench.engine.task import Network, Pixels, make_task
from pflbench.experiment.cutoff import cut
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import Resolved
from pflbench.experiment.schedules import decay_of
from pflbench.models import zoo
from pflbench.models.batchnorm import LocalStatistics

Parts = list[np.ndarray]


def build(resolved: Resolved, machine: Machine, device: torch.device) -> tuple[engine.World, Samples]:
    """The world of a resolved experiment: data, split, model, first weights, all on ``device``."""
    experiment, chosen = resolved.experiment, resolved.chosen
    set_arithmetic(experiment.precision, machine.deterministic)
    samples = chosen["dataset"].make(machine.data_root)
    train, test, validation = split(resolved, samples)
    seed = experiment.seed
    shape = (int(samples.train_x.shape[1]), int(samples.train_x.shape[2]), int(samples.train_x.shape[3]))
    zoo.refuse_small(chosen["model"], shape)
    model = zoo.build(chosen["model"], shape, samples.classes, seed_of(seed, "weights"))
    way = choose_engine(machine.engine, device, model.convolutional)
    network = Network(model.module, experiment.precision)
    method = chosen["method"].make()
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
        batch_size=min(experiment.batch_size, max(map(len, train))),  # padding beyond that would only take time
        seed=seed,
        decay=decay_of(chosen["schedule"].make, experiment.rounds),
        engine=way,
        chunk=machine.chunk,
        threads=machine.cores if device.type == "cpu" else 1,  # a GPU is kept busy by one
        augment=experiment.augment,
        recorder=CudaRecorder(device) if device.type == "cuda" and machine.graphs else None,
    )
    world = placed(world, samples, model, machine)
    if "cut" in chosen:
        world = cut(world, experiment.rounds, *chosen["cut"].make(world.clients))
    return world, samples


def placed(world: engine.World, samples: Samples, model: zoo.Model, machine: Machine) -> engine.World:
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
        held=parts(need, where),
    )


def split(resolved: Resolved, samples: Samples) -> tuple[Parts, Parts, Parts]:
    """Train, local-test and validation indices per client; validation is empty if none is held out."""
    labels, official = samples.train_y.numpy(), samples.test_y.numpy()
    experiment, chosen = resolved.experiment, resolved.chosen["partition"]
    seed = experiment.partition_seed or 0
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
            cure = f"prepare user={column}" if samples.name.startswith("hf:") else "only hf: data sets have users"
            raise BadInput("partition.column", column, f"{samples.name} has {known}; {cure}")
        rng = stream(seed, "partition")
        train = partition(labels, experiment.clients, chosen, rng, users)
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
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError(device.type)
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


@contextmanager
def switches_kept() -> Iterator[None]:
    """Leaves the switches that ``set_arithmetic`` turns, which are torch's for the whole process, as they were."""
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    cudnn, matmul = torch.backends.cudnn, torch.get_float32_matmul_precision()
    kept = {name: getattr(cudnn, name) for name in ("deterministic", "benchmark", "allow_tf32")}
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        torch.set_float32_matmul_precision(matmul)
        for name, value in kept.items():
            setattr(cudnn, name, value)


def keep_freed_memory() -> None:
    """Tells glibc to keep what is freed: a training step otherwise returns its gradients to the kernel and faults them
    in again, a third of a CNN's step on a CPU. Does nothing on other systems; changes no number."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD: the largest that glibc takes
    mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
