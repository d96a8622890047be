"""Small worlds for laws and tests: random images, uneven clients, everything in float64 unless asked."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from pflbench.core.method import Method
from pflbench.engine import engine
from pflbench.engine.engine import World
from pflbench.engine.task import Network, Pixels, make_task
from pflbench.models import batchnorm
from pflbench.models.zoo import Model

SIZES = (7, 23, 4, 12, 1, 16)  # with batches of 5: two clients smaller than one batch, one of a single sample


def tiny(hidden: int = 5, norm: bool = False) -> Model:
    """A convolution (with BatchNorm on request) and a head, for 1x4x4 images and 3 classes."""
    layers = [nn.Conv2d(1, hidden, 3), *([batchnorm.BatchNorm2d(hidden)] if norm else []), nn.ReLU(), nn.Flatten()]
    module = nn.Sequential()
    module.add_module("body", nn.Sequential(*layers))
    module.add_module("head", nn.Linear(hidden * 4, 3))
    batchnorm.name(module)
    return Model(module, "head", convolutional=True)


def world(
    method: Method,
    *,
    precision: Any = "float64",
    sizes: Sequence[int] = SIZES,
    model: Callable[[], Model] = tiny,
    epochs: int = 2,
    momentum: float = 0.9,
    weight_decay: float = 0.01,
    validation: bool = False,
    **changes: Any,
) -> World:
    """A world of ``len(sizes)`` clients; ``changes`` replace fields of World."""
    rng = np.random.default_rng(1)
    total = sum(sizes)
    labels = rng.integers(0, 3, total + 30)
    images = rng.integers(0, 256, (total + 30, 1, 4, 4)) // 2 + labels[:, None, None, None] * 40
    with torch.random.fork_rng():
        torch.manual_seed(3)
        built = model()
    network = Network(built.module, precision)
    task = make_task(
        built, network, torch.device("cpu"), epochs=epochs, lr=0.05, momentum=momentum, weight_decay=weight_decay
    )
    half = torch.full((1, 1, 1), 0.5, dtype=network.dtype)
    pixels = [
        Pixels(torch.as_tensor(images[part]).to(torch.uint8), torch.as_tensor(labels[part]), half, half)
        for part in (slice(0, total), slice(total, None))
    ]
    cuts = np.split(rng.permutation(total), np.cumsum(sizes)[:-1])
    made = World(
        method=method,
        task=task,
        network=network,
        pixels=pixels[0],
        official=pixels[1],
        train=[np.sort(cut) for cut in cuts],
        test=[np.sort(rng.choice(30, 1 + k % 4, replace=False)) for k in range(len(sizes))],
        validation=[cut[:2] for cut in cuts] if validation else [],
        weight=np.array(sizes, dtype=float),
        cohort_size=4,
        batch_size=5,
        seed=11,
        decay=lambda round: 0.9**round,
        engine="loop",
        chunk=64,
    )
    return replace(made, **changes)


def played(made: World, rounds: int = 3) -> engine.Federation:
    """The federation after ``rounds`` rounds."""
    federation = engine.start(made)
    for round in range(rounds):
        federation, _ = engine.play(made, federation, round)
    return federation
