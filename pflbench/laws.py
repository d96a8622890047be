"""The laws every method must obey, run over a method file: ``pflbench check NAME`` or ``pflbench check ./mine.py``.

Each law is a function whose docstring states it; it returns None where it holds, raises Broken where it does not, and
returns a reason where it does not apply. Laws run in a toy world of six uneven clients (two smaller than a batch, one of
a single sample), partial participation, momentum and weight decay, in float64. Several were made from defects found in
released code; those say which.
"""

import ast
import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from pflbench import engine, registry, toy, tree
from pflbench.engine import Federation, World
from pflbench.fields import FieldDoc, describe
from pflbench.method import Method, State

ALLOWED = ("pflbench.tree", "pflbench.local", "pflbench.method", "pflbench.spectral", "torch", "dataclasses", "typing")


class Broken(AssertionError):
    """A law does not hold; the message says what was found."""


class Verdict(NamedTuple):
    """One row of ``pflbench check``; ``holds`` is None where the law does not apply."""

    law: str
    holds: bool | None
    detail: str


@dataclass(frozen=True)
class Case:
    """One method under test: its class, with default fields, and where its source is."""

    name: str

    @cached_property
    def kind(self) -> type[Method]:
        return registry.method_class(self.name)

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
        return inspect.getsource(registry.module_of(self.name))


def check(name: str) -> list[Verdict]:
    """Every law for one method, in order. A law that crashes is broken. Raises BadInput for an unknown method."""
    case = Case(name)
    _ = case.kind
    rows = []
    for law in LAWS:
        statement = (inspect.getdoc(law) or law.__name__).splitlines()[0]
        try:
            reason = law(case)
            rows.append(Verdict(statement, True if reason is None else None, reason or ""))
        except Exception as error:
            kind = "" if isinstance(error, Broken) else f"{type(error).__name__}: "
            rows.append(Verdict(statement, False, kind + " ".join(str(error).split())[:300]))
    return rows


def is_a_frozen_record(case: Case) -> str | None:
    """The method is a frozen dataclass and running it assigns nothing to it."""
    require(dataclasses.is_dataclass(case.kind), "is not a dataclass")
    require(case.kind.__dataclass_params__.frozen, "is not frozen")  # type: ignore[attr-defined]
    made = case.kind()
    before = dict(vars(made))
    toy.played(replace(case.world, method=made), 1)
    require(vars(made) == before, f"changed: {sorted(vars(made))}")
    return None


def imports_one_client_only(case: Case) -> str | None:
    """The file imports the one-client vocabulary and torch, nothing that knows of clients, devices, clocks or paths."""
    found = set()
    for node in ast.walk(ast.parse(case.source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = node.module in ("pflbench", "baselines")
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if whole else {str(node.module)}
    standard = ("collections", "functools", "itertools", "math")
    strange = sorted(name for name in found if not name.startswith((*ALLOWED, *standard)))
    require(not strange, f"imports {', '.join(strange)}")
    return None


def documents_itself(case: Case) -> str | None:
    """The module says what it departs from, and every field has a meaning and a source."""
    text = inspect.getdoc(registry.module_of(case.name)) or ""
    require("Departures" in text, "the module's docstring has no line `Departures`")
    bare = [row.name for row in describe(case.kind) if not (row.meaning and row.source)]
    require(not bare, f"no meaning or source: {', '.join(bare)}")
    return None


def draws_no_chance(case: Case) -> str | None:
    """The same inputs give the same bits: chance comes in with the feed and from nowhere else."""
    require(distance(case.played, toy.played(case.world)) == 0, "two runs differ")
    return None


def loop_is_vmap(case: Case) -> str | None:
    """One client after another and all at once give the same states to 1e-9."""
    within(case.played, toy.played(replace(case.world, engine="vmap")), 1e-9)
    return None


def neighbours_do_not_matter(case: Case) -> str | None:
    """A client's result depends neither on who is computed with it nor on the order of the cohort."""
    cohort = np.arange(case.world.clients)
    results = []
    for order in (cohort, cohort[::-1], np.array([3, 1, 5, 0, 4, 2])):
        made = replace(case.world, engine="vmap", chunk=4)
        rows = tree.rows(case.played.c, torch.as_tensor(order.copy()))
        epochs = case.method.work(made.task).contribute
        result = engine.stage(made, "contribute", case.method.contribute, case.played.w, rows, order, 5, epochs)
        results.append(tree.rows(result, torch.as_tensor(np.argsort(order))))
    within(results[0], results[1], 1e-9)
    within(results[0], results[2], 1e-9)
    return None


def padding_is_nothing(case: Case) -> str | None:
    """A batch of pure padding changes no bit of a state."""
    feeds = engine._feeds

    def padded(*arguments: Any) -> tuple[dict[str, Tensor], list[list[bool]]]:
        draws, awake = feeds(*arguments)
        return {key: torch.cat([draw, torch.zeros_like(draw)], 2) for key, draw in draws.items()}, [
            row + [False] * len(row) for row in awake
        ]

    try:
        engine._feeds = padded  # type: ignore[assignment]
        longer = toy.played(case.world)
    finally:
        engine._feeds = feeds
    require(distance(case.played, longer) == 0, f"states move by {distance(case.played, longer):.1e}")
    return None


def states_are_values(case: Case) -> str | None:
    """Stored states share no memory (released code: the generic and a personal model were one object)."""
    leaves = tree.flatten(tuple(case.played))
    places: dict[int, str] = {}
    for name, leaf in leaves.items():
        place = leaf.untyped_storage().data_ptr()
        require(not leaf.numel() or place not in places, f"{name} is {places.get(place)}")
        places[place] = name
    return None


def inputs_are_left_alone(case: Case) -> str | None:
    """A stage changes none of its arguments in place."""
    before = Federation(*tree.clone(tuple(case.played)))
    rows = tree.clone(case.played.c)
    everyone = np.arange(case.world.clients)
    for stage, function, epochs in stages(case):
        engine.stage(case.world, stage, function, case.played.w, rows, everyone, 7, epochs)  # type: ignore[arg-type]
    require(distance(before, Federation(case.played.w, rows)) == 0, "w or c was written to")
    return None


def small_clients_train(case: Case) -> str | None:
    """A client with fewer samples than one batch, even one sample, takes part (a library dropped its only batch)."""
    smallest = int(np.argmin([len(part) for part in case.world.train]))
    other = replace(case.world, pixels=changed_pixels(case.world, smallest), cohort_size=case.world.clients)
    same = replace(case.world, cohort_size=case.world.clients)
    gap = distance(toy.played(same, 1), toy.played(other, 1))
    require(gap > 1e-9, "its data do not matter")
    return None


def the_generic_model_moves(case: Case) -> str | None:
    """The generic model moves from its first weights (a library's default kept the old one for ever)."""
    first, last = (case.method.generic(f.w) for f in (engine.start(case.world), case.played))
    if first is None or last is None:
        return "the method has no generic model"
    require(distance(first, last) > 1e-6, "it is still the initial one")
    return None


def the_aggregate_is_used(case: Case) -> str | None:
    """Changing the aggregate changes the next round's training (in released code it was evaluated and never used)."""
    if not tree.flatten(case.played.w):
        return "the server holds nothing"
    if "spectral_released" in case.name:
        return "the released code, audited: its aggregate is unused once every client has been seen"
    moved = Federation(tree.each(lambda leaf: leaf + 0.1, case.played.w), tree.clone(case.played.c))
    kept = Federation(case.played.w, tree.clone(case.played.c))
    gap = distance(*(engine.play(case.world, f, 3)[0] for f in (kept, moved)))
    require(gap > 1e-6, "the next round is the same")
    return None


def personal_models_are_trained(case: Case) -> str | None:
    """A sampled client's deployed model is neither the initial nor the generic one (two libraries deploy just those)."""
    models = deployed(case, 0)
    if models is None:
        return "the method deploys no personal model"
    start, generic = case.world.task.start, case.method.generic(case.played.w)
    require(distance(models, start) > 1e-6, "it is the initial model")
    if generic is not None:
        require(distance(models, generic) > 1e-9, "it is the generic model")
    others = [deployed(case, k) for k in (1, 3)]
    require(all(distance(models, cast(State, other)) > 1e-9 for other in others), "two clients deploy the same model")
    return None


def defaults_do_something(case: Case) -> str | None:
    """No default switches the method off: a coefficient that may be zero is not, and zero gives another result."""
    rows = [row for row in describe(case.kind) if may_be_zero(row)]
    if not rows:
        return "no field may be zero"
    world = toy.world(case.method, momentum=0.0, weight_decay=0.0)
    base = toy.played(world)
    for row in rows:
        require(row.default != 0, f"{row.name} = 0 by default")
        if row.name in dict(INERT).get(case.kind.__name__, ()):
            continue
        off = replace(world, method=dataclasses.replace(case.method, **{row.name: type(row.default)(0)}))  # type: ignore[type-var]
        require(_differ(base, toy.played(off)), f"{row.name} = {row.default} gives what {row.name} = 0 gives")
    return None


def statistics_are_state(case: Case) -> str | None:
    """BatchNorm buffers move in every model that is trained, the aggregate's and the personal ones."""
    made = toy.world(case.method, model=lambda: toy.tiny(norm=True))
    played = toy.played(made)
    names = [name for name in made.task.start if name not in made.task.parameters]
    generic = case.method.generic(played.w)
    trained = [("generic", generic)] if generic is not None else []
    personal = case.method.deploy(played.w, _client(played, 0))
    trained += [("personal", personal)] if personal is not None else []
    for which, model in trained:
        still = [name for name in names if torch.equal(model[name], made.task.start[name])]
        require(not still, f"the {which} model's {', '.join(still)} did not move")
    return None if trained else "the method deploys no model"


def nothing_drifts(case: Case) -> str | None:
    """One round at zero learning rate, with momentum and weight decay, moves no model: nothing drifts by itself."""
    made = replace(case.world, decay=lambda round: 0.0, cohort_size=case.world.clients)
    after = toy.played(made, 1)
    models = [
        case.method.generic(after.w),
        *(case.method.deploy(after.w, _client(after, k)) for k in range(made.clients)),
    ]
    for model in models:
        if model is not None:
            within(model, made.task.start, 1e-12)
    return None


LAWS: tuple[Callable[[Case], str | None], ...] = (
    is_a_frozen_record,
    imports_one_client_only,
    documents_itself,
    draws_no_chance,
    loop_is_vmap,
    neighbours_do_not_matter,
    padding_is_nothing,
    states_are_values,
    inputs_are_left_alone,
    small_clients_train,
    the_generic_model_moves,
    the_aggregate_is_used,
    personal_models_are_trained,
    defaults_do_something,
    statistics_are_state,
    nothing_drifts,
)

# fields that are inert by the released code's own construction, which the audit is there to show
INERT = (("SpectralReleased", ("lam_g", "lam_l")),)


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


def within(one: Any, other: Any, bound: float) -> None:
    gap = distance(one, other)
    require(gap <= bound, f"states differ by {gap:.1e}, allowed {bound:g}")


def distance(one: Any, other: Any) -> float:
    """Largest absolute difference between two trees of one structure; NaN counts as infinite."""
    one, other = (tuple(item) if isinstance(item, Federation) else item for item in (one, other))
    gaps = tree.flatten(
        tree.each(lambda a, b: (a.double() - b.double()).abs().max() if a.numel() else torch.zeros(()), one, other)
    )
    worst = max((float(gap) for gap in gaps.values()), default=0.0)
    return float("inf") if any(torch.isnan(gap) for gap in gaps.values()) else worst


def _differ(one: Federation, other: Federation) -> bool:
    shapes = [{name: leaf.shape for name, leaf in tree.flatten(tuple(f)).items()} for f in (one, other)]
    return shapes[0] != shapes[1] or distance(one, other) > 1e-9


def _client(federation: Federation, client: int) -> Any:
    return tree.each(lambda leaf: leaf[client], federation.c)


def may_be_zero(row: FieldDoc) -> bool:
    return row.type in ("float", "int") and row.allowed.split(" and ")[0] == ">= 0"


def stages(case: Case) -> list[tuple[str, Any, int]]:
    work = case.method.work(case.world.task)
    return [
        ("contribute", case.method.contribute, work.contribute),
        ("personalise", case.method.personalise, work.personalise),
        ("adapt", case.method.adapt, work.adapt),
    ]


def deployed(case: Case, client: int) -> State | None:
    """The model that a client would use after two rounds of everyone, fine-tuned where the method says so."""
    made = replace(case.world, cohort_size=case.world.clients)
    federation = toy.played(made, 2)
    here = np.array([client])
    rows = tree.rows(federation.c, torch.as_tensor(here))
    epochs = case.method.work(made.task).adapt
    if epochs:
        rows = engine.stage(made, "adapt", case.method.adapt, federation.w, rows, here, 2, epochs)
    return case.method.deploy(federation.w, tree.each(lambda leaf: leaf[0], rows))


def changed_pixels(world: World, client: int) -> Any:
    """The world's training images with one client's inverted."""
    x = world.pixels.x.clone()
    x[world.train[client]] = 255 - x[world.train[client]]
    return replace(world.pixels, x=x)
