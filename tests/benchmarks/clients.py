"""What a client-step costs with 10,000 clients against 100, measured in turn in one process; prints a markdown table.

    python tests/benchmarks/clients.py --data-root DIR [--clients 10000] [--repeats 15]

Ditto, whose clients each keep a model, on Fashion-MNIST with the small CNN: a cohort of 20, every client 20 images. Both
federations learn the same steps from other rows of a bank that is 100 times larger, in device memory, host memory or a
file. Memory is what the process holds beside mapped files, with both federations alive.
"""

import os
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from pflbench.core import tree
from pflbench.engine import engine
from pflbench.engine.placement import bank_at
from pflbench.experiment.build import build, pick_device
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve

FEW, COHORT, IMAGES = 100, 20, 20
ASKED = {"method": "ditto", "dataset": "fashion_mnist", "model": "cnn_small", "clients": COHORT, "partition": "iid",
         "participation": 1.0, "epochs": 2, "batch_size": 10, "lr": 0.05}  # fmt: skip


def with_clients(world: engine.World, clients: int) -> engine.World:
    """``world`` with so many clients of equal size, images drawn with replacement."""
    rng = np.random.default_rng(0)
    train = list(rng.integers(0, len(world.pixels.y), (clients, IMAGES)))
    return replace(world, train=train, test=[], weight=np.ones(clients), captured={})


def step_ms(world: engine.World, federation: engine.Federation, round: int) -> float:
    """Milliseconds of one batch of one client, a round's mean, everything included."""
    wait = torch.cuda.synchronize if world.pixels.device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    _, cost = engine.play(world, federation, round)
    wait()
    return 1e3 * (time.perf_counter() - began) / sum(cost.contribute + cost.personalise)


def held() -> int:
    """Bytes of this process that belong to no file."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), envvar="PFLBENCH_DATA")
@click.option("--clients", default=10_000)
@click.option("--repeats", default=15)
@click.option("--device", default="auto")
def main(data_root: Path | None, clients: int, repeats: int, device: str) -> None:
    place = pick_device(device)
    made, _ = build(resolve(Experiment.of(ASKED), data_root), Machine(device=device, data_root=data_root), place)
    cores = len(os.sched_getaffinity(0))
    print(f"torch {torch.__version__}, Python {platform.python_version()}, device {place}, {cores} cores, one used")
    print(f"\n| client states | {FEW} clients, ms | {clients} clients, ms | ratio | range | states | process |")
    print("|---|---|---|---|---|---|---|")
    for where in ("device", "file") if place.type == "cpu" else ("device", "host", "file"):
        with tempfile.TemporaryDirectory() as folder:
            world = replace(made, bank=bank_at(where, Path(folder)))
            worlds = [with_clients(world, FEW), with_clients(world, clients)]
            states = [engine.start(each) for each in worlds]
            pairs = []
            for round in range(-2, repeats):  # two rounds to warm up
                pairs.append([step_ms(*pair, round + 2) for pair in zip(worlds, states, strict=True)])
            pairs = pairs[2:]
            few, many = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratios = sorted(b / a for a, b in pairs)
            size = 4 * tree.numbers(states[1].c)
            print(
                f"| {where} | {few:.2f} | {many:.2f} | **{statistics.median(ratios):.2f}** | {ratios[0]:.2f} to "
                f"{ratios[-1]:.2f} | {size / 2**30:.1f} GiB | {held() / 2**30:.1f} GiB |",
                flush=True,
            )
            del states


if __name__ == "__main__":
    main()
