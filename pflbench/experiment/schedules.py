"""Learning rate over the rounds: a factor, as a function of the share of the rounds that are done.

A schedule is a function ``(done, *, fields) -> factor``; done: 0 in the first round, 1 in the last.
"""

import math
from collections.abc import Callable
from typing import Annotated

from pflbench.core.fields import hyper
from pflbench.core.registry import Functions


def constant(done: float) -> float:
    """The same learning rate in every round."""
    return 1.0


def cosine(done: float, *, final: Annotated[float, hyper("factor in the last round", ge=0, le=1)] = 0.0) -> float:
    """Half a cosine from 1 down to ``final`` (Loshchilov and Hutter, ICLR 2017, arXiv 1608.03983, eq. 5, no restarts)."""
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


def exponential(done: float, *, final: Annotated[float, hyper("factor in the last round", gt=0, le=1)] = 0.1) -> float:
    """Falls by the same factor every round, to ``final`` in the last."""
    return float(final**done)


def step(
    done: float,
    *,
    at: Annotated[float, hyper("share of the rounds after which the rate drops", gt=0, lt=1)] = 0.5,
    factor: Annotated[float, hyper("factor after the drop", gt=0, le=1)] = 0.1,
) -> float:
    """One drop."""
    return factor if done >= at else 1.0


SCHEDULES = Functions("schedule", {each.__name__: each for each in (constant, cosine, exponential, step)})


def decay_of(schedule: Callable[[float], float], rounds: int) -> Callable[[int], float]:
    """Factor on the learning rate in round 0 .. ``rounds`` - 1."""
    last = max(1, rounds - 1)
    return lambda round: schedule(round / last)
