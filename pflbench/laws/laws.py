"""The laws every method must obey, run over a method file: ``pflbench check NAME`` or ``pflbench check ./mine.py``.

Each law is a function whose docstring states it; it returns None where it holds, raises Broken where it does not, and
returns a reason where it does not apply. Laws run in a toy world of six uneven clients (two smaller than a batch, one of
a single sample), partial participation, momentum and weight decay, in float64. Several were made from defects found in
released code; those say which. What holds of one method alone is in ``identities``.
"""

import ast
import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pflbench.core import tree
from pflbench.core.fields import FieldDoc, describe
from pflbench.core.tree import State
from pflbench.engine import engine
from pflbench.engine.engine import Federation, World
from pflbench.engine.task import Pixels
from pflbench.laws import toy
from pflbench.laws.identities import IDENTITIES
from pflbench.laws.subject import Case, deployed, distance, models, require, within

Law = Callable[[Case], str | None]

ALLOWED = ("pflbench.method", "torch", "dataclasses", "typing")
STANDARD = ("collections", "functools", "itertools", "math")

# What the released code, audited, does on purpose: its terms have no gradient, its aggregate goes unused.
INERT = {"SpectralReleased": ("lam_g", "lam_l")}
UNUSED = ("SpectralReleased",)


class Verdict(NamedTuple):
    """One row of ``pflbench check``; ``holds`` is None where the law does not apply."""

    law: str
    holds: bool | None
    detail: str


def check(name: str) -> list[Verdict]:
    """Every law and identity for one method, in order. Raises BadInput for an unknown method."""
    case = Case(name)
    _ = case.kind
    return [verdict(law, case) for law in (*LAWS, *IDENTITIES)]


def verdict(law: Law, case: Case) -> Verdict:
    """One law for one method. A law that crashes is broken."""
    statement = (inspect.getdoc(law) or law.__name__).splitlines()[0]
    try:
        reason = law(case)
    except Exception as error:
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return Verdict(statement, False, kind + " ".join(str(error).split())[:300])
    return Verdict(statement, True if reason is None else None, reason or "")


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
    strange = sorted(name for name in found if not name.startswith((*ALLOWED, *STANDARD)))
    require(not strange, f"imports {', '.join(strange)}")
    return None


def documents_itself(case: Case) -> str | None:
    """The module says what it departs from, and every field has a meaning and a source."""
    require("Departures" in (inspect.getdoc(case.module) or ""), "the module's docstring has no line `Departures`")
    bare = [field.name for field in describe(case.kind) if not (field.meaning and field.source)]
    require(not bare, f"no meaning or source: {', '.join(bare)}")
    return None


def draws_no_chance(case: Case) -> str | None:
    """The same inputs give the same bits: chance comes in with the feed and from nowhere else."""
    require(distance(case.played, toy.played(case.world)) == 0, "two runs differ")
    return None


def rounds_keep_the_structure(case: Case) -> str | None:
    """A round keeps the names and shapes of every state, so that a run can go on from what is stored."""
    first, last = (tree.flatten(tuple(f)) for f in (engine.start(case.world), case.played))
    shapes = [{name: tuple(leaf.shape) for name, leaf in leaves.items()} for leaves in (first, last)]
    changed = sorted(name for name in {**first, **last} if shapes[0].get(name) != shapes[1].get(name))
    require(not changed, f"changed: {', '.join(changed)}")
    return None


def loop_is_vmap(case: Case) -> str | None:
    """One client after another and all at once give the same states to 1e-9."""
    within(case.played, toy.played(replace(case.world, engine="vmap")), 1e-9)
    return None


def neighbours_do_not_matter(case: Case) -> str | None:
    """A client's result depends neither on who is computed with it nor on the order of the cohort."""
    everyone, shuffled = np.arange(case.world.clients), np.array([3, 1, 5, 0, 4, 2])
    for stage, function, epochs in case.stages:
        results = []
        for order, chunk in ((everyone, 1), (everyone, 4), (shuffled, 6)):
            made, own = replace(case.world, engine="vmap", chunk=chunk), case.begin(stage, order, 5)
            result = engine.stage(made, stage, function, case.played.w, own, order, 5, epochs)
            results.append(tree.rows(result, torch.as_tensor(np.argsort(order))))
        within(results[0], results[1], 1e-9)
        within(results[0], results[2], 1e-9)
    return None


def padding_is_nothing(case: Case) -> str | None:
    """A batch of pure padding changes no bit of a state."""
    feeds = engine._feeds

    def padded(*arguments: Any) -> tuple[dict[str, Tensor], list[list[bool]]]:
        draws, awake = feeds(*arguments)
        longer = {key: torch.cat([draw, torch.zeros_like(draw)], 2) for key, draw in draws.items()}
        return longer, [row + [False] * len(row) for row in awake]

    try:
        engine._feeds = padded  # type: ignore[assignment]
        longer = toy.played(case.world)
    finally:
        engine._feeds = feeds
    within(case.played, longer, 0)
    return None


def states_are_values(case: Case) -> str | None:
    """Stored states share no memory (released code: the generic and a personal model were one object)."""
    _apart(engine.start(case.world), case.world.task.start)
    _apart(case.played, case.world.task.start)
    return None


def inputs_are_left_alone(case: Case) -> str | None:
    """A stage changes none of its arguments in place."""
    everyone = np.arange(case.world.clients)
    for stage, function, epochs in case.stages:
        held = Federation(case.played.w, case.begin(stage, everyone, 7))
        before = Federation(*tree.clone(tuple(held)))
        engine.stage(case.world, stage, function, held.w, held.c, everyone, 7, epochs)
        require(distance(before, held) == 0, "w or c was written to")
    return None


def gradients_are_of_the_objective(case: Case) -> str | None:
    """Every gradient taken equals finite differences of its objective (released code: one term had no gradient)."""
    taken = [gradient for gradient in case.gradients() if gradient.names]
    if not taken:
        return "the method takes no gradient with `sgd` or `gradient`"
    chance = torch.Generator().manual_seed(1)
    for loss, p, batch, names, found in taken:
        along = {name: torch.randn(p[name].shape, generator=chance, dtype=p[name].dtype) for name in names}
        ends = [float(loss({**p, **tree.axpy(h, along, {n: p[n] for n in names})}, batch)) for h in (1e-5, -1e-5)]
        expected, slope = (ends[0] - ends[1]) / 2e-5, float(sum((found[n] * along[n]).sum() for n in names))
        near = abs(slope - expected) <= 1e-7 + 1e-5 * abs(expected)
        require(near, f"the objective changes by {expected:.6g} per step, its gradient says {slope:.6g}")
    return None


def small_clients_train(case: Case) -> str | None:
    """A client with fewer samples than one batch, even one sample, takes part (a library dropped its only batch)."""
    smallest = int(np.argmin([len(part) for part in case.world.train]))
    same = replace(case.world, cohort_size=case.world.clients)
    other = replace(same, pixels=_inverted(case.world, smallest))
    require(distance(toy.played(same, 1), toy.played(other, 1)) > 1e-9, "its data do not matter")
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
    if case.kind.__name__ in UNUSED:
        return "the released code, audited: once a client has been seen, its aggregate is unused"
    kept = Federation(case.played.w, tree.clone(case.played.c))
    moved = Federation(tree.each(lambda leaf: leaf + 0.1, case.played.w), tree.clone(case.played.c))
    gap = distance(*(engine.play(case.world, federation, 3)[0] for federation in (kept, moved)))
    require(gap > 1e-6, "the next round is the same")
    return None


def personal_models_are_trained(case: Case) -> str | None:
    """A sampled client's deployed model is neither the initial nor the generic one (two libraries deploy just those)."""
    made = replace(case.world, cohort_size=case.world.clients)
    federation = toy.played(made, 2)
    own, *others = (deployed(made, federation, client, 2) for client in (0, 1, 3))
    generic = case.method.generic(federation.w)
    if own is None:
        return "the method deploys no personal model"
    require(distance(own, made.task.start) > 1e-6, "it is the initial model")
    require(generic is None or distance(own, generic) > 1e-9, "it is the generic model")
    require(all(distance(own, other) > 1e-9 for other in others), "two clients deploy the same model")
    return None


def defaults_do_something(case: Case) -> str | None:
    """No default switches the method off: a coefficient that may be zero is not, and zero gives another result."""
    fields = [field for field in describe(case.kind) if _may_be_zero(field)]
    if not fields:
        return "no field may be zero"
    world = toy.world(case.method, momentum=0.0, weight_decay=0.0)
    base = toy.played(world)
    for field in fields:
        require(field.default != 0, f"{field.name} = 0 by default")
        off = case.with_fields(**{field.name: type(field.default)(0)}).method
        if field.name not in INERT.get(case.kind.__name__, ()):
            same = distance(base, toy.played(replace(world, method=off))) <= 1e-9
            require(not same, f"{field.name} = {field.default} gives what {field.name} = 0 gives")
    return None


def statistics_are_state(case: Case) -> str | None:
    """BatchNorm buffers move in every model that is trained, the aggregate's and the personal ones."""
    made = toy.world(case.method, model=lambda: toy.tiny(norm=True))
    played = toy.played(made)
    trained = {"generic": case.method.generic(played.w), "personal": models(made, played)[0]}
    for which, model in trained.items():
        still = [n for n in made.task.start if n not in made.task.parameters and model is not None
                 and torch.equal(model[n], made.task.start[n])]  # fmt: skip
        require(not still, f"the {which} model's {', '.join(still)} did not move")
    return None if any(model is not None for model in trained.values()) else "the method deploys no model"


def nothing_drifts(case: Case) -> str | None:
    """One round at zero learning rate, with momentum and weight decay, moves no model: nothing drifts by itself."""
    made = replace(case.world, decay=lambda round: 0.0, cohort_size=case.world.clients)
    after = toy.played(made, 1)
    for model in (case.method.generic(after.w), *models(made, after)):
        if model is not None:
            within(model, made.task.start, 1e-12)
    return None


LAWS: tuple[Law, ...] = (
    is_a_frozen_record,
    imports_one_client_only,
    documents_itself,
    draws_no_chance,
    rounds_keep_the_structure,
    loop_is_vmap,
    neighbours_do_not_matter,
    padding_is_nothing,
    states_are_values,
    inputs_are_left_alone,
    gradients_are_of_the_objective,
    small_clients_train,
    the_generic_model_moves,
    the_aggregate_is_used,
    personal_models_are_trained,
    defaults_do_something,
    statistics_are_state,
    nothing_drifts,
)


def _apart(federation: Federation, start: State) -> None:
    """Requires every leaf to lie in memory of its own, none in that of the first model."""
    taken = {leaf.untyped_storage().data_ptr(): f"the first model's {name}" for name, leaf in start.items()}
    for name, leaf in tree.flatten(tuple(federation)).items():
        place = leaf.untyped_storage().data_ptr()
        require(not leaf.numel() or place not in taken, f"{name} is {taken.get(place)}")
        taken[place] = name


def _may_be_zero(field: FieldDoc) -> bool:
    return field.type in ("float", "int") and field.allowed.split(" and ")[0] == ">= 0"


def _inverted(world: World, client: int) -> Pixels:
    """The world's training images with one client's inverted."""
    x = world.pixels.x.clone()
    x[world.train[client]] = 255 - x[world.train[client]]
    return replace(world.pixels, x=x)
