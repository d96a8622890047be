"""One method under test in a toy world, and the words that laws and identities are written in."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from pflbench.baselines import METHODS
from pflbench.core import local, tree
from pflbench.core import method as contract
from pflbench.core.local import Batch, Loss
from pflbench.core.method import Method
from pflbench.core.registry import Thing
from pflbench.core.tree import State, Tree
from pflbench.engine import engine
from pflbench.engine.engine import Federation, Stage, StageFunction, World
from pflbench.laws import toy


class Broken(AssertionError):
    """A law does not hold; the message says what was found."""


class Gradient(NamedTuple):
    """One gradient that a method took: of ``loss`` at ``p`` over ``batch``, by the parameters ``names``."""

    loss: Loss
    p: State
    batch: Batch
    names: tuple[str, ...]
    value: State


@dataclass(frozen=True)
class Case:
    """One method under test: its class, with default fields, and where its source is."""

    name: str

    @cached_property
    def found(self) -> Thing:
        return METHODS.find(self.name)

    @property
    def kind(self) -> type[Method]:
        return cast(type[Method], self.found.target)

    @property
    def module(self) -> ModuleType:
        assert self.found.module is not None
        return self.found.module

    @cached_property
    def method(self) -> Method:
        return self.kind()

    @cached_property
    def world(self) -> World:
        return toy.world(self.method)

    @cached_property
    def played(self) -> Federation:
        """After three rounds in the reference engine."""
        return toy.played(self.world)

    @property
    def source(self) -> str:
        return inspect.getsource(self.module)

    def with_fields(self, **fields: Any) -> World:
        """The world with other hyper-parameters."""
        missing = sorted(set(fields) - set(vars(self.method)))
        require(not missing, f"{self.kind.__name__} has no field {', '.join(missing)}")
        return replace(self.world, method=self.kind(**fields))

    @property
    def stages(self) -> list[tuple[Stage, StageFunction, int]]:
        """Name, function and passes over the data of every stage that has any."""
        work = self.method.work(self.world.task)
        every: list[tuple[Stage, StageFunction, int]] = [
            ("contribute", self.method.contribute, work.contribute),
            ("personalise", self.method.personalise, work.personalise),
            ("adapt", self.method.adapt, work.adapt),
        ]
        return [stage for stage in every if stage[2]]

    def begin(self, stage: Stage, clients: np.ndarray, round: int) -> Tree:
        """What ``clients`` hold as ``stage`` begins, after three rounds: personalise goes on from what contribute left."""
        own, epochs = rows(self.played, clients), self.method.work(self.world.task).contribute
        if stage != "personalise" or not epochs:
            return own
        left = engine.stage(
            self.world, "contribute", self.method.contribute, self.played.w, own, clients, round, epochs
        )
        return cast(tuple[Tree, Tree], left)[1]

    def gradients(self, client: int = 0) -> list[Gradient]:
        """Every gradient that ``client`` takes in the stages of a fourth round, in order."""
        here, every = np.array([client]), []
        for stage, function, epochs in self.stages:
            own = self.begin(stage, here, 3)
            with spying(self.module) as taken:
                engine.stage(self.world, stage, function, self.played.w, own, here, 3, epochs)
            every += taken
        return every


@contextmanager
def spying(module: ModuleType) -> Iterator[list[Gradient]]:
    """Collects what ``gradient`` is asked for and answers, also where ``module`` imported it by name."""
    taken: list[Gradient] = []
    plain = local.gradient

    def spy(loss: Loss, p: State, batch: Batch, names: Any) -> tuple[State, State]:
        found = plain(loss, p, batch, names)
        taken.append(Gradient(loss, p, batch, tuple(names), found[0]))
        return found

    places = [place for place in (local, contract, module) if getattr(place, "gradient", None) is plain]
    for place in places:
        place.gradient = spy  # type: ignore[attr-defined]
    try:
        yield taken
    finally:
        for place in places:
            place.gradient = plain  # type: ignore[attr-defined]


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


def within(one: Any, other: Any, bound: float) -> None:
    """Requires two trees to be equal to ``bound``; 0: bit for bit."""
    gap = distance(one, other)
    require(gap <= bound, f"they differ by {gap:.1e}, allowed {bound:g}")


def distance(one: Any, other: Any) -> float:
    """Largest absolute difference between two trees; infinite where one holds NaN or names and shapes differ."""
    one, other = (tree.flatten(tuple(item) if isinstance(item, Federation) else item) for item in (one, other))
    if {name: leaf.shape for name, leaf in one.items()} != {name: leaf.shape for name, leaf in other.items()}:
        return float("inf")
    gaps = [(one[name].double() - other[name].double()).abs().max() for name in one if one[name].numel()]
    worst = max((float(gap) for gap in gaps), default=0.0)
    return float("inf") if any(bool(torch.isnan(gap)) for gap in gaps) else worst


def rows(federation: Federation, clients: np.ndarray) -> Tree:
    """The states of ``clients``, copied: leaves [K, ...]."""
    return tree.rows(federation.c, torch.as_tensor(clients.copy()))


def row(federation: Federation, client: int) -> Tree:
    """One client's state."""
    return tree.each(lambda leaf: leaf[client], federation.c)


def models(world: World, federation: Federation) -> list[State | None]:
    """Every client's stored model, before any fine-tuning."""
    return [world.method.deploy(federation.w, row(federation, client)) for client in range(world.clients)]


def deployed(world: World, federation: Federation, client: int, round: int) -> State | None:
    """The model that a client would use, fine-tuned first where the method says so."""
    here = np.array([client])
    own = rows(federation, here)
    epochs = world.method.work(world.task).adapt
    if epochs:
        own = engine.stage(world, "adapt", world.method.adapt, federation.w, own, here, round, epochs)
    return world.method.deploy(federation.w, tree.each(lambda leaf: leaf[0], own))
