"""A round of every method in the paper's settings, networks at full width: seconds and memory, as a markdown table.

    python tests/benchmarks/paper_settings.py [--methods fedavg,spectral] [--settings cifar10] [--device auto]

Images are random, 50,000 to train in the shape of each data set, so no file is needed; speed does not depend on what they
show. On a GPU a whole round is timed, after one to warm up. On a CPU, where a round takes hours, two batches of one client
in every pass are, and the round's seconds are the batches of a whole round times that (marked ~). Memory is the peak of a
process of its own: of the GPU, or of the process with one client's states.
"""

import multiprocessing
import platform
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import click
import torch
import yaml

from pflbench.baselines import METHODS
from pflbench.data.samples import Samples
from pflbench.engine import engine
from pflbench.experiment.build import build, pick_device
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve

SETTINGS = Path(__file__).parents[2] / "paper_figures" / "settings"
TRAIN, TEST, BATCHES = 50_000, 10_000, 2
SHAPES = {"cifar10": (32, 10), "cifar100": (32, 100), "inaturalist": (64, 13)}  # pixels a side, classes


def stand_in(name: str) -> Samples:
    """Random images in the shape of a data set."""
    side, classes = SHAPES[name]
    chance = torch.Generator().manual_seed(0)
    parts = []
    for count in (TRAIN, TEST):
        x = torch.randint(0, 256, (count, 3, side, side), generator=chance, dtype=torch.uint8)
        parts += [x, torch.randint(0, classes, (count,), generator=chance)]
    return Samples(f"random, as {name}", *parts, classes, (0.5,) * 3, (0.3,) * 3, "random")


def row(setting: str, method: str, device: str) -> str:
    """One row of the table."""
    given = {**yaml.safe_load((SETTINGS / f"{setting}.yaml").read_text(encoding="utf-8")), "method": method}
    place = pick_device(device)
    name = Experiment.of(given).dataset.name
    with patch("pflbench.data.digest", return_value=None), patch("pflbench.data.load", return_value=stand_in(name)):
        experiment = resolve(Experiment.of(given))
        whole, _ = build(experiment, Machine(device=device), place)
    small = whole
    if place.type == "cpu":
        one = int(engine.cohort_of(whole, 0)[0])
        few = whole.train[one][: BATCHES * whole.batch_size]
        small = replace(whole, train=[few], weight=whole.weight[[one]], cohort_size=1, test=[whole.test[one]])
    federation = engine.start(small)
    if place.type == "cuda":
        federation, _ = engine.play(small, federation, 1)
        torch.cuda.synchronize()
    began = time.perf_counter()
    federation, cost = engine.play(small, federation, 0)
    if place.type == "cuda":
        torch.cuda.synchronize()
    seconds, done = time.perf_counter() - began, sum(cost.contribute + cost.personalise)
    assert engine.finite(federation)
    batches = sum(sum(engine.charge(whole, int(client), 0)) for client in engine.cohort_of(whole, 0))
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if place.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    total = f"{seconds:.1f}" if small is whole else f"~{seconds * batches / done:,.0f}"
    states = whole.plan["client states"]
    return (
        f"| {setting} | {method} | {cost.down / 1e6:.1f} M | {batches:,} | {1e3 * seconds / done:.1f} | {total} | {states} | "
        f"{peak / 2**30:.1f} GiB |"
    )


@click.command()
@click.option("--settings", default="cifar10,cifar100,inaturalist")
@click.option("--methods", default=",".join(METHODS.names()))
@click.option("--device", default="auto")
def main(settings: str, methods: str, device: str) -> None:
    place = pick_device(device)
    named = torch.cuda.get_device_name(place) if place.type == "cuda" else "one core"
    print(f"torch {torch.__version__}, Python {platform.python_version()}, device {place} ({named})")
    print(
        "\n| setting | method | numbers sent down | batches a round | ms a batch | s a round | client states | peak |"
    )
    print("|---|---|---|---|---|---|---|---|")
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as alone:
        for setting in settings.split(","):
            for method in methods.split(","):
                print(alone.submit(row, setting, method, device).result(), flush=True)


if __name__ == "__main__":
    main()
