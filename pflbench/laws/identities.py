"""What holds of one method alone: its limits, its stored states, what it sends, the form of its pull.

Laws in the sense of ``pflbench.laws``, for the methods of this package by the name of their class, so that a user's own
FedProx is held to what FedProx is. Bit for bit, unless an identity says otherwise: paired streams make limits exact.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np

from pflbench.baselines import METHODS
from pflbench.core import tree
from pflbench.core.local import gradient
from pflbench.engine import engine
from pflbench.engine.engine import World
from pflbench.laws import toy
from pflbench.laws.subject import Case, deployed, distance, models, require, rows, within

Identity = Callable[[Case], str | None]

MODEL, BODY, NOTHING = "the model", "the body", "nothing"
SENT = {"SpectralCoDistillation": MODEL, "SpectralReleased": MODEL, "FedAvg": MODEL, "FedAvgFineTuned": MODEL,
        "FedProx": MODEL, "Ditto": MODEL, "PFedMe": MODEL, "FedRep": BODY, "LocalOnly": NOTHING}  # fmt: skip


def of(*classes: str) -> Callable[[Callable[[Case], None]], Identity]:
    """An identity of the methods whose class has one of these names."""

    def decorate(function: Callable[[Case], None]) -> Identity:
        @wraps(function)
        def identity(case: Case) -> str | None:
            if case.kind.__name__ not in classes:
                return f"of {', '.join(classes)}" if len(classes) < 3 else "of the methods of this package"
            function(case)
            return None

        return identity

    return decorate


def as_method(name: str, world: World) -> World:
    """The same world under a method of this package with its default fields."""
    return replace(world, method=METHODS.get(name)())


@of("FedProx")
def fedprox_without_pull_is_fedavg(case: Case) -> None:
    """FedProx with mu = 0 is FedAvg."""
    within(toy.played(case.with_fields(mu=0.0)).w, toy.played(as_method("fedavg", case.world)).w, 0)


@of("Ditto", "FedAvgFineTuned")
def generic_stream_is_fedavg(case: Case) -> None:
    """The generic model is FedAvg's: what is personal leaves no trace in it."""
    within(case.played.w, toy.played(as_method("fedavg", case.world)).w, 0)


@of("Ditto")
def ditto_without_pull_is_local_training(case: Case) -> None:
    """Ditto with lam = 0 is local training, for as many epochs."""
    made, alone = case.with_fields(lam=0.0), as_method("local_only", case.world)
    _same_models(made, alone, 0)


@of("FedAvgFineTuned")
def fine_tuning_is_training(case: Case) -> None:
    """The fine-tuned model is FedAvg's local training from the generic model, for ft_epochs."""
    made, here = case.with_fields(ft_epochs=3), np.array([1])
    plain = as_method("fedavg", made).method.contribute
    uploads, _ = engine.stage(made, "adapt", plain, case.played.w, rows(case.played, here), here, 3, 3)
    within(deployed(made, case.played, 1, 3), tree.each(lambda leaf: leaf[0], uploads), 0)


@of("FedRep")
def fedrep_that_shares_all_is_fedavg(case: Case) -> None:
    """FedRep with every layer in the body and no head epochs is FedAvg."""
    made = case.with_fields(head_epochs=0, body_epochs=case.world.task.epochs)
    made = replace(made, task=replace(made.task, head=()))
    within(toy.played(made).w, toy.played(as_method("fedavg", case.world)).w, 0)


@of("PFedMe")
def theta_is_stored(case: Case) -> None:
    """pFedMe deploys theta as training left it: not w_k, which is sent, and whatever the server holds by then."""
    stage, function, epochs = case.stages[0]
    here = np.array([1])
    sent, theta = engine.stage(case.world, stage, function, case.played.w, rows(case.played, here), here, 3, epochs)
    require(distance(sent, theta) > 1e-3, "theta is w_k")
    theta = tree.each(lambda leaf: leaf[0], theta)
    for w in (case.played.w, tree.zeros(case.played.w)):
        deploys = case.method.deploy(w, theta)
        require(deploys is not None and distance(deploys, theta) == 0, "it deploys another model than theta")
    require(distance(rows(case.played, here), tree.each(lambda leaf: leaf[None], case.played.w)) > 1e-3, "theta is w")


@of("SpectralCoDistillation")
def spectral_without_pull_is_fedavg_and_local_training(case: Case) -> None:
    """Spectral co-distillation with (lam_g, lam_p) = (0, 0) is FedAvg and, beside it, local training."""
    made = case.with_fields(lam_g=0.0, lam_p=0.0)
    within(toy.played(made).w, toy.played(as_method("fedavg", case.world)).w, 0)
    _same_models(made, as_method("local_only", case.world), 0)


@of("SpectralReleased")
def released_without_pull_is_local_training(case: Case) -> None:
    """The released code with beta = 0 is local training once every client has been seen, to rounding."""
    everyone = replace(case.with_fields(beta=0.0), cohort_size=case.world.clients)
    _same_models(everyone, as_method("local_only", everyone), 1e-12)


@of(*SENT)
def sends_what_it_says(case: Case) -> None:
    """Up and down go the numbers that the method's page says, the model, its body or nothing, and no others."""
    kind = SENT[case.kind.__name__]
    start, head = case.world.task.start, case.world.task.head
    expected = {name for name in start if kind == MODEL or (kind == BODY and name not in head)}
    everyone = np.arange(case.world.clients)
    epochs = case.method.work(case.world.task).contribute
    arguments = (case.played.w, rows(case.played, everyone), everyone, 3, epochs)
    sent, _ = engine.stage(case.world, "contribute", case.method.contribute, *arguments)
    for which, leaves, lead in (("up", sent, (len(everyone),)), ("down", case.played.w, ())):
        shapes = {name: tuple(leaf.shape) for name, leaf in tree.flatten(leaves).items()}
        require(shapes == {n: (*lead, *start[n].shape) for n in expected}, f"{which} go {', '.join(sorted(shapes))}")


@of("FedProx", "Ditto")
def pull_is_the_papers(case: Case) -> None:
    """The pull adds coefficient x (p - received w) to the loss's gradient, and is not zero."""
    coefficient = next(iter(vars(case.method).values()))
    pulls = []
    for loss, p, batch, names, found in case.gradients():
        own, _ = gradient(case.world.task.loss, p, batch, names)
        expected = {n: coefficient * (p[n] - case.played.w[n]) for n in names}
        if loss != case.world.task.loss:
            within({n: found[n] - own[n] for n in names}, expected, 1e-9)
            pulls.append(max(float(pull.abs().max()) for pull in expected.values()))
    require(max(pulls, default=0.0) > 1e-3, "nothing is pulled")


IDENTITIES: tuple[Identity, ...] = (
    sends_what_it_says,
    fedprox_without_pull_is_fedavg,
    generic_stream_is_fedavg,
    ditto_without_pull_is_local_training,
    fine_tuning_is_training,
    fedrep_that_shares_all_is_fedavg,
    theta_is_stored,
    spectral_without_pull_is_fedavg_and_local_training,
    released_without_pull_is_local_training,
    pull_is_the_papers,
)


def _same_models(one: World, other: World, bound: float) -> None:
    pair: list[Any] = [models(world, toy.played(world)) for world in (one, other)]
    within(tuple(pair[0]), tuple(pair[1]), bound)
