"""Every method equals an independent implementation of its equations (``oracles``), on both engines, in float64.

Uneven clients, one smaller than a batch, one never drawn, partial participation, a falling learning rate; with and
without momentum and weight decay; linear layers, convolutions and batch statistics.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from unittest.mock import patch

import numpy as np
import oracles.ditto
import oracles.fedavg
import oracles.fedavg_ft
import oracles.fedprox
import oracles.fedrep
import oracles.local_only
import oracles.pfedme
import oracles.spectral
import oracles.spectral_released
import pytest
import torch
from oracles.common import Problem, Result
from torch import Tensor, nn

from pflbench.baselines.ditto import Ditto
from pflbench.baselines.fedavg import FedAvg
from pflbench.baselines.fedavg_ft import FedAvgFineTuned
from pflbench.baselines.fedprox import FedProx
from pflbench.baselines.fedrep import FedRep
from pflbench.baselines.local_only import LocalOnly
from pflbench.baselines.pfedme import PFedMe
from pflbench.baselines.spectral import SpectralCoDistillation
from pflbench.baselines.spectral_released import SpectralReleased
from pflbench.core import tree
from pflbench.core.method import Method
from pflbench.engine import engine, evaluation
from pflbench.engine.engine import Federation, World
from pflbench.laws.toy import played, tiny, world
from pflbench.models.zoo import Model

ROUNDS, BATCH = 3, 5
SIZES = (7, 23, 4, 12, 1, 16)  # with this seed, cohorts of 2 leave out a client and meet the smallest two
TOLERANCE = 1e-9  # relative to the largest number compared, or to 1


def perceptron() -> Model:
    module = nn.Sequential()
    module.add_module("body", nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU()))
    module.add_module("head", nn.Linear(5, 3))
    return Model(module, "head", convolutional=False)


MODELS: dict[str, Callable[[], Model]] = {
    "perceptron": perceptron,
    "convolution": tiny,
    "batch statistics": partial(tiny, norm=True),
}
SETTINGS = [("perceptron", 0.0, 0.0), *((name, 0.9, 0.01) for name in MODELS)]  # model, momentum, weight decay


@dataclass(frozen=True)
class Row:
    """A method with fields that act strongly, and its oracle with the same numbers."""

    method: Method
    oracle: Callable[[Problem], Result]


def row(method: Method, oracle: Callable[..., Result], **renamed: str) -> Row:
    given = {renamed.get(name, name): value for name, value in vars(method).items()}
    return Row(method, partial(oracle, **given))


def spectral(method: SpectralCoDistillation) -> Row:
    used = ("lam_g", "lam_p", "tau", "personal_epochs", "reference")
    reading = oracles.spectral.Reading(method.layout, method.content, method.normalise, method.smoothing)
    return Row(method, partial(oracles.spectral.run, reading=reading, **{name: getattr(method, name) for name in used}))


def released(state: str) -> Row:
    method = SpectralReleased(state=state, beta=0.3, lam_g=2e5, lam_l=3e5, ratio=0.6)  # type: ignore[arg-type]
    return row(method, oracles.spectral_released.run, state="code")


STRONG = SpectralCoDistillation(lam_g=2.0, lam_p=3.0, tau=0.4, personal_epochs=1)

ROWS: Mapping[str, Row] = {
    "fedavg": row(FedAvg(), oracles.fedavg.run),
    "local_only": row(LocalOnly(), oracles.local_only.run),
    "fedavg_ft": row(FedAvgFineTuned(ft_epochs=2), oracles.fedavg_ft.run),
    "fedavg_ft, head only": row(FedAvgFineTuned(ft_epochs=1, head_only=True), oracles.fedavg_ft.run),
    "fedprox": row(FedProx(mu=0.7), oracles.fedprox.run),
    "ditto": row(Ditto(lam=0.8, personal_epochs=3), oracles.ditto.run),
    "pfedme": row(PFedMe(lam=4.0, inner_steps=3, eta_p=0.05, eta=0.02, beta=1.3), oracles.pfedme.run),
    "fedrep": row(FedRep(head_epochs=2, body_epochs=1), oracles.fedrep.run),
    "fedrep, averaged head": row(FedRep(head_epochs=1, body_epochs=2, average_head=True), oracles.fedrep.run),
    "spectral": spectral(STRONG),
    **{
        f"spectral, {', '.join(each)}": spectral(replace(STRONG, layout=each[0], content=each[1], normalise=each[2]))
        for each in product(("vector", "layer", "matrix"), ("weights", "all"), ("global", "per_layer", "none"))
    },
    "spectral, received": spectral(replace(STRONG, reference="received")),
    "spectral, own": spectral(replace(STRONG, reference="own")),
    "spectral, smooth": spectral(replace(STRONG, smoothing=0.1, normalise="per_layer")),
    "spectral_released": released("released"),
    "spectral_released, unaliased": released("unaliased"),
    "spectral_released, reference": released("reference"),
    "spectral_released, differentiable": released("differentiable"),
}


def plain_module(model: str) -> nn.Module:
    """The same network made of torch's own layers."""
    if model == "perceptron":
        return perceptron().module
    norm = [nn.BatchNorm2d(5)] if model == "batch statistics" else []
    module = nn.Sequential()
    module.add_module("body", nn.Sequential(nn.Conv2d(1, 5, 3), *norm, nn.ReLU(), nn.Flatten()))
    module.add_module("head", nn.Linear(20, 3))
    return module


def problem(made: World, model: str) -> Problem:
    """The world as plain data: chance is data, so the oracle is given what the engine drew."""
    module = plain_module(model).double()
    module.load_state_dict(made.task.start, strict=False)

    def batches(round: int, client: int, stage: str, epochs: int) -> list[list[Tensor]]:
        position = {int(index): n for n, index in enumerate(made.train[client])}
        table = engine._draw(made, client, round, stage, epochs)  # type: ignore[arg-type]
        pieces = [[row[start : start + BATCH] for start in range(0, len(row), BATCH)] for row in table]
        return [[torch.tensor([position[int(i)] for i in piece if i >= 0]) for piece in epoch] for epoch in pieces]

    return Problem(
        module=module,
        x=[(made.pixels.x[index].double() / 255 - 0.5) / 0.5 for index in map(torch.as_tensor, made.train)],
        y=[made.pixels.y[index] for index in map(torch.as_tensor, made.train)],
        weight=list(SIZES),
        cohorts=[engine.cohort_of(made, round).tolist() for round in range(ROUNDS)],
        batches=batches,
        decay=[0.9**round for round in range(ROUNDS + 1)],
        epochs=2,
        lr=0.05,
        momentum=made.task.momentum,
        weight_decay=made.task.weight_decay,
    )


def make(method: Method, way: str, model: str, momentum: float, weight_decay: float) -> World:
    return world(
        method,
        sizes=SIZES,
        model=MODELS[model],
        momentum=momentum,
        weight_decay=weight_decay,
        cohort_size=2,
        engine=way,
        chunk=4,
    )


def deployed(made: World, federation: Federation) -> list[dict[str, Tensor]] | None:
    """The models that an evaluation counts with, one per client."""
    found: list[dict[str, Tensor]] = []

    def count(made: World, models: dict[str, Tensor], pixels: object, parts: list[np.ndarray]) -> list[int]:
        found.extend({name: leaf[k] for name, leaf in models.items()} for k in range(len(parts)))
        return [0] * len(parts)

    with patch.object(evaluation, "_count", count):
        evaluation.evaluate(made, federation, ROUNDS)
    return found or None


def gap(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> tuple[float, float]:
    """Largest difference, and largest number, over trees that must have the same names."""
    assert set(ours) == set(theirs)
    pairs = [(ours[name].detach().double(), theirs[name].double()) for name in theirs]
    return (
        max((float((a - b).abs().max()) for a, b in pairs), default=0.0),
        max((float(b.abs().max()) for _, b in pairs), default=0.0),
    )


def compare(name: str, way: str, model: str, momentum: float, weight_decay: float) -> dict[str, tuple[float, float]]:
    """(error, scale) of the server's state, of all clients' states and of all deployed models after three rounds."""
    made = make(ROWS[name].method, way, model, momentum, weight_decay)
    federation = played(made, ROUNDS)
    expected = ROWS[name].oracle(problem(made, model))
    clients = [tree.flatten(tree.each(lambda leaf, k=k: leaf[k], federation.c)) for k in range(len(SIZES))]
    models = deployed(made, federation)
    assert (models is None) == (expected.deployed is None)
    pairs = {
        "server": [(tree.flatten(federation.w), expected.server)],
        "clients": list(zip(clients, expected.clients, strict=True)),
        "deployed": list(zip(models or [], expected.deployed or [], strict=True)),
    }
    gaps = {part: [gap(*pair) for pair in both] for part, both in pairs.items()}
    return {
        part: (max((g[0] for g in each), default=0.0), max((g[1] for g in each), default=0.0))
        for part, each in gaps.items()
    }


def oracle_table() -> list[dict[str, str | float | None]]:
    """One row per method and engine: the largest absolute error over all settings, per part of the state.

    None for a part that the method does not have.
    """
    table: list[dict[str, str | float | None]] = []
    for name in ROWS:
        for way in ("loop", "vmap"):
            found = [compare(name, way, *setting) for setting in SETTINGS]
            worst = {part: max(errors[part][0] for errors in found) for part in found[0]}
            held = {part: found[0][part][1] > 0 for part in worst}
            table.append({"method": name, "engine": way, **{p: worst[p] if held[p] else None for p in worst}})
    return table


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s[0]}-{s[1]:g}-{s[2]:g}")
@pytest.mark.parametrize("way", ["loop", "vmap"])
@pytest.mark.parametrize("name", ROWS)
def test_equals_its_oracle(name, way, setting):
    for part, (error, scale) in compare(name, way, *setting).items():
        assert error <= TOLERANCE * max(1.0, scale), part


def test_the_setting_is_hard_enough():
    made = make(FedAvg(), "loop", *SETTINGS[1])
    drawn = {int(client) for round in range(ROUNDS) for client in engine.cohort_of(made, round)}
    assert len(drawn) < len(SIZES)  # somebody never trains
    assert any(SIZES[client] < BATCH for client in drawn)  # somebody trains on less than a batch
    assert len({SIZES[client] for client in drawn}) > 2  # weights matter


def test_an_epoch_draws_every_sample_once():
    """The oracles take the engine's draws as given, so these are checked here."""
    made = make(FedAvg(), "loop", *SETTINGS[1])
    for client, mine in enumerate(made.train):
        for epoch in problem(made, SETTINGS[1][0]).batches(1, client, "contribute", 2):
            assert sorted(torch.cat(epoch).tolist()) == list(range(len(mine)))
            assert [len(batch) for batch in epoch[:-1]] == [BATCH] * (len(epoch) - 1)


def test_a_constant_term_and_another_reference_change_no_bit():
    """The audit's first finding: correcting the reference does nothing while the term has no gradient."""
    one, other = (
        played(make(SpectralReleased(state=state), "loop", *SETTINGS[1])) for state in ("unaliased", "reference")
    )
    assert all(map(torch.equal, tree.flatten(tuple(one)).values(), tree.flatten(tuple(other)).values()))


def test_the_released_generic_model_is_never_used_by_a_seen_client():
    """Once every client has trained, replacing the aggregate by sevens changes no personal model."""
    made = make(SpectralReleased(), "loop", *SETTINGS[1])
    seen = engine.start(made)
    seen = Federation(seen.w, {**seen.c, "seen": torch.ones_like(seen.c["seen"])})
    sevens = Federation(tree.each(lambda leaf: leaf * 0 + 7, seen.w), tree.clone(seen.c))
    after = [engine.play(made, federation, 0)[0] for federation in (seen, sevens)]
    assert all(torch.equal(after[0].c["v"][n], after[1].c["v"][n]) for n in after[0].w)
    assert all(torch.equal(after[0].w[n], after[1].w[n]) for n in after[0].w)
