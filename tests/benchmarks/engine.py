"""Speed of the engine against plain loops, measured in turn in one process; prints ratios as a markdown table.

    python tests/benchmarks/engine.py [--data-root DIR] [--repeats 5]

Each row runs A and B alternately on the same federation, cohort, batches and first weights, and gives the median of the
pairwise ratios with its range. ``plain`` is what one would write by hand: a module, torch.optim.SGD, one client after
another, the same steps. It is checked to learn the same model.
"""

import copy
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import click
import torch
from torch.nn import functional

from pflbench.core.streams import seed_of
from pflbench.data.samples import Samples
from pflbench.engine import engine
from pflbench.experiment.build import build, pick_device
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.models import zoo
from pflbench.models.zoo import MODELS

DIGITS = {"method": "fedavg", "participation": 1.0, "seed": 0}
FASHION = {"method": "fedavg", "dataset": "fashion_mnist", "model": "cnn", "partition": "dirichlet:alpha=0.3", "clients": 100,
           "participation": 0.1, "epochs": 1, "batch_size": 10, "lr": 0.02}  # fmt: skip
CIFAR = {**FASHION, "dataset": "digits", "batch_size": 50}


def plain_round(world: engine.World, experiment: Experiment, round: int) -> dict[str, torch.Tensor]:
    """FedAvg by hand: returns the new global model."""
    shape = tuple(int(n) for n in world.pixels.x.shape[1:])
    name, fields = experiment.model.name, experiment.model.fields
    start = zoo.build(MODELS.choose(name, fields), shape, 10, seed_of(experiment.seed, "weights")).module.to(
        world.pixels.x.device
    )
    cohort = engine.cohort_of(world, round)
    total = {key: torch.zeros_like(value) for key, value in start.state_dict().items()}
    for client in cohort:
        module = copy.deepcopy(start)
        optimiser = torch.optim.SGD(module.parameters(), lr=experiment.lr)
        table = engine._draw(world, int(client), round, "contribute", experiment.epochs)
        for epoch in table:
            order = torch.as_tensor(epoch[epoch >= 0], device=world.pixels.x.device)
            for index in order.split(experiment.batch_size):
                optimiser.zero_grad()
                functional.cross_entropy(module(world.pixels.images(index)), world.pixels.y[index]).backward()
                optimiser.step()
        for key, value in module.state_dict().items():
            total[key] += value * (world.weight[client] / world.weight[cohort].sum())
    return total


def engine_round(world: engine.World, round: int) -> dict[str, torch.Tensor]:
    result: dict[str, torch.Tensor] = engine.play(world, engine.start(world), round)[0].w
    return result


def seconds(function: Callable[[], dict[str, torch.Tensor]]) -> tuple[float, dict[str, torch.Tensor]]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    result = function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, result


def compare(
    title: str, repeats: int, slow: Callable[[int], dict], fast: Callable[[int], dict], equal: bool = True
) -> None:
    """Prints one row: how many times faster ``fast`` is than ``slow``."""
    slow(0), fast(0)
    times, gap = [], 0.0
    for round in range(repeats):
        (a, one), (b, other) = seconds(lambda r=round: slow(r)), seconds(lambda r=round: fast(r))
        times.append((a, b))
        gap = max([gap, *(float((one[key] - other[key]).abs().max()) for key in one)])
    ratios = sorted(a / b for a, b in times)
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"| {title} | {1e3 * a:.0f} | {1e3 * b:.0f} | **{statistics.median(ratios):.2f}** | "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f} | {f'{gap:.1e}' if equal else ''} |",
        flush=True,
    )


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), default=None)
@click.option("--repeats", default=5)
@click.option("--device", default="auto")
def main(data_root: Path | None, repeats: int, device: str) -> None:
    place = pick_device(device)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, device {place}")
    print("\n| A against B, one round each | A ms | B ms | A / B | range | largest gap of weights |")
    print("|---|---|---|---|---|---|")
    machine = Machine(device=device, data_root=data_root, threads=1)
    for partition in ("dirichlet:alpha=0.1", "iid"):
        asked, world = made({**DIGITS, "partition": partition}, machine, place)
        loop, vmap = (replace(world, engine=way, captured={}) for way in ("loop", "vmap"))
        title = f"digits, MLP, cohort 20, {partition}"
        compare(f"{title}: loop / vmap", repeats, partial(engine_round, loop), partial(engine_round, vmap))
        compare(f"{title}: plain / vmap", repeats, partial(plain_round, world, asked), partial(engine_round, vmap))
    for title, fields in (("Fashion-MNIST, CNN, batch 10", FASHION), ("synthetic 3x32x32, CNN, batch 50", CIFAR)):
        asked, world = made(fields, machine, place)
        row = f"{title}, 100 clients, cohort 10: plain / {world.engine}"
        compare(row, repeats, partial(plain_round, world, asked), partial(engine_round, world))
        if place.type == "cpu":
            both = replace(world, threads=2)
            compare(f"{row}, both on 2 cores", repeats, partial(on_two, world, asked), partial(engine_round, both))
            compare(f"{title}: 1 core / 2 cores", repeats, partial(engine_round, world), partial(engine_round, both))
    for title, fields in (("digits, MLP", DIGITS), ("Fashion-MNIST, CNN, batch 10", FASHION)):
        worlds = [made({**fields, "method": method}, machine, place)[1] for method in ("spectral", "ditto")]
        compare(f"{title}: spectral / Ditto", repeats, *(partial(whole_round, world) for world in worlds), equal=False)


def made(fields: dict, machine: Machine, place: torch.device) -> tuple[Experiment, engine.World]:
    """The experiment and its world; CIFAR's pixels are noise of its shape, for nothing but their number matters here."""
    with synthetic() if fields is CIFAR else nullcontext():
        resolved = resolve(Experiment.of(fields))
        return resolved.experiment, build(resolved, machine, place)[0]


def synthetic():
    """Inside, the digits are 60,000 images of noise, 3x32x32, of 10 classes."""
    chance = torch.Generator().manual_seed(0)
    x, y = torch.randint(0, 256, (60_000, 3, 32, 32), generator=chance).to(torch.uint8), torch.arange(60_000) % 10
    half = (0.5, 0.5, 0.5)
    samples = Samples("noise", x[:50_000], y[:50_000], x[50_000:], y[50_000:], 10, half, half, "noise")
    return patch("pflbench.data.sets.digits.load", lambda root: samples)


def on_two(world: engine.World, experiment: Experiment, round: int) -> dict[str, torch.Tensor]:
    torch.set_num_threads(2)
    try:
        return plain_round(world, experiment, round)
    finally:
        torch.set_num_threads(1)


def whole_round(world: engine.World, round: int) -> dict[str, torch.Tensor]:
    """Both stages; no two methods end at the same model, so there is nothing to compare but time."""
    engine.play(world, engine.start(world), round)
    return {}


if __name__ == "__main__":
    main()
