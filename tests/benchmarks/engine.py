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
from dataclasses import replace
from pathlib import Path

import click
import torch
from torch.nn import functional

from pflbench.core.streams import seed_of
from pflbench.engine import engine
from pflbench.experiment.build import build, pick_device
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.models import zoo
from pflbench.models.zoo import MODELS

DIGITS = {"method": "fedavg", "participation": 1.0, "seed": 0}
FASHION = {"method": "fedavg", "dataset": "fashion_mnist", "model": "cnn", "partition": "dirichlet:alpha=0.3", "clients": 100,
           "participation": 0.1, "epochs": 1, "batch_size": 20, "lr": 0.02}  # fmt: skip


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


def compare(title: str, repeats: int, slow: Callable[[int], dict], fast: Callable[[int], dict]) -> None:
    """Prints one row: how many times faster ``fast`` is than ``slow``."""
    slow(0), fast(0)
    times, gap = [], 0.0
    for round in range(repeats):
        (a, one), (b, other) = seconds(lambda r=round: slow(r)), seconds(lambda r=round: fast(r))
        times.append((a, b))
        gap = max(gap, max(float((one[key] - other[key]).abs().max()) for key in one))
    ratios = sorted(a / b for a, b in times)
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"| {title} | {1e3 * a:.0f} | {1e3 * b:.0f} | **{statistics.median(ratios):.2f}** | "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f} | {gap:.1e} |",
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
    machine = Machine(device=device, data_root=data_root)
    for partition in ("dirichlet:alpha=0.1", "iid"):
        experiment = resolve(Experiment.of({**DIGITS, "partition": partition}))
        world, _ = build(experiment, machine, place)
        loop, vmap = (replace(world, engine=way, captured={}) for way in ("loop", "vmap"))
        compare(
            f"digits, MLP, cohort 20, {partition}: loop / vmap",
            repeats,
            lambda r, w=loop: engine_round(w, r),
            lambda r, w=vmap: engine_round(w, r),
        )
    experiment = resolve(Experiment.of(FASHION))
    world, _ = build(experiment, machine, place)
    title = f"Fashion-MNIST, CNN, 100 clients, cohort 10: plain / {world.engine}"
    compare(title, repeats, lambda r: plain_round(world, experiment, r), lambda r: engine_round(world, r))
    if place.type == "cpu":
        both = replace(world, threads=2)

        def plain_on_two(r: int) -> dict:
            torch.set_num_threads(2)
            result = plain_round(world, experiment, r)
            torch.set_num_threads(1)
            return result

        compare(f"{title}, both on 2 cores", repeats, plain_on_two, lambda r: engine_round(both, r))


if __name__ == "__main__":
    main()
