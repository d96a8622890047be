"""Every law and identity over every method; each law breaks on a method made to break it; pulls are gradients."""

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import numpy as np
import oracles.spectral
import oracles.spectral_released
import pytest
import torch
from applies import NOT_APPLICABLE, OF_THEIR_OWN
from click.testing import CliRunner
from torch import Tensor

from pflbench.baselines import METHODS
from pflbench.baselines.ditto import Ditto
from pflbench.baselines.fedprox import FedProx
from pflbench.baselines.pfedme import PFedMe
from pflbench.baselines.spectral import SpectralCoDistillation
from pflbench.baselines.spectral_released import SpectralReleased
from pflbench.cli import main
from pflbench.core.local import Batch, Feed, Task, plain
from pflbench.core.tree import State
from pflbench.engine import engine
from pflbench.laws.identities import IDENTITIES
from pflbench.laws.laws import LAWS, verdict
from pflbench.laws.subject import Case

ALL = {law.__name__: law for law in (*LAWS, *IDENTITIES)}


@cache
def case(name: str) -> Case:
    return Case(name)


def applies(name: str, law: str) -> bool:
    if ALL[law] in LAWS:
        return law not in NOT_APPLICABLE.get(name, set())
    return law == "sends_what_it_says" or law in OF_THEIR_OWN.get(name, set())


@pytest.mark.parametrize("law", ALL)
@pytest.mark.parametrize("name", METHODS.names())
def test_law(name, law):
    reason = ALL[law](case(name))
    assert (reason is None) == applies(name, law), reason


# --- a user's own file -----------------------------------------------------------------------------------------------

MINE = '''"""A prox to the received model and a personal copy. Departures: all of them."""

from dataclasses import dataclass
from typing import Annotated

import torch

from pflbench.method import Method, Work, each, fold, gradient, hyper, sgd, sq_dist


@dataclass(frozen=True)
class Mine(Method):
    mu: Annotated[float, hyper("pull", source="ours", ge=0)] = 0.5

    def init(self, task, p):
        return p, {"v": p}

    def work(self, task):
        return Work(contribute=task.epochs, personalise=1)

    def contribute(self, task, w, c, feed):
        def near(p, batch):
            return task.loss(p, batch) + self.mu / 2 * sq_dist(p, w)

        return sgd(near, w, feed, task), c

    def personalise(self, task, w, c, feed):
        return {"v": sgd(task.loss, c["v"], feed, task)}

    def merge(self, w, mean):
        return mean

    def generic(self, w):
        return w

    def deploy(self, w, c):
        return c["v"]
'''

STEPS = "lr=task.lr / len(feed.whole[0]))"  # padding included: a method must not look at it
SEES = 'torch._C._functorch.is_batchedtensor(feed.draws["index"])'
BREAKS = [  # law, what is in MINE, what stands there instead: for every law a method that breaks it
    ("is_a_frozen_record", "@dataclass(frozen=True)", "@dataclass"),
    ("is_a_frozen_record", 'return {"v": sgd', 'object.__setattr__(self, "last", w)\n        return {"v": sgd'),
    ("imports_one_client_only", "import torch\n", "import time\n"),
    ("imports_one_client_only", "import torch\n", "from pflbench import engine\n"),
    ("documents_itself", "Departures: all of them.", ""),
    ("documents_itself", '"pull"', '""'),
    ("documents_itself", '"ours"', '""'),
    ("draws_no_chance", "return mean", "return each(lambda x: x + torch.rand(()), mean)"),
    ("rounds_keep_the_structure", "return mean", 'return {**mean, "more": torch.zeros(2)}'),
    ("loop_is_vmap", "return sgd(near, w,", f"return sgd(near, each(lambda x: x + 1e-6 * {SEES}, w),"),
    ("neighbours_do_not_matter", 'c["v"], feed, task)', f'c["v"], feed, task, {STEPS}'),
    ("padding_is_nothing", 'c["v"], feed, task)', f'c["v"], feed, task, {STEPS}'),
    ("inputs_are_left_alone", 'return {"v": sgd', 'w["head.bias"].add_(1.0)\n        return {"v": sgd'),
    ("gradients_are_of_the_objective", "sq_dist(p, w)", "sq_dist(each(lambda x: x.detach(), p), w)"),
    ("small_clients_train", "task.loss", "(lambda p, batch: batch.mask.all() * task.loss(p, batch))"),
    ("the_generic_model_moves", "return mean", "return w"),
    ("the_aggregate_is_used", "sgd(near, w, feed, task)", 'sgd(task.loss, c["v"], feed, task)'),
    ("personal_models_are_trained", 'return c["v"]', "return w"),
    ("personal_models_are_trained", '{"v": sgd(task.loss, c["v"], feed, task)}', "c"),
    ("defaults_do_something", "] = 0.5", "] = 0.0"),
    ("defaults_do_something", "self.mu / 2 *", "0 *"),
    ("statistics_are_state", "return mean", "return {**mean, **{n: w[n] for n in w if 'running' in n}}"),
    ("nothing_drifts", "return mean", "return each(lambda x: 0.99 * x, mean)"),
]


@pytest.fixture
def mine(tmp_path):
    def write(*changes):
        text = MINE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / f"mine{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_plain_method_of_a_user_obeys(law, mine):
    assert law(Case(mine())) is None


@pytest.mark.parametrize(("law", "old", "new"), BREAKS, ids=[f"{law}-{n}" for n, (law, _, _) in enumerate(BREAKS)])
def test_a_law_can_be_broken(law, old, new, mine):
    found = verdict(ALL[law], Case(mine((old, new))))
    assert found.holds is False
    assert "Error:" not in found.detail  # broken, not crashed


def test_every_law_is_broken_by_something():
    """All but one, which the engine keeps for every method: tests/mutations.py breaks it there."""
    assert {law.__name__ for law in LAWS} - {law for law, _, _ in BREAKS} == {"states_are_values"}


def test_a_class_is_held_to_its_name(mine):
    """A user's own FedProx must be FedProx; half the pull is found out."""
    identity, named = ALL["pull_is_the_papers"], ("class Mine", "class FedProx")
    assert identity(Case(mine())) == "of FedProx, Ditto"  # not applicable
    assert identity(Case(mine(named))) is None
    assert verdict(identity, Case(mine(named, ("self.mu / 2", "self.mu / 4")))).holds is False


def check(*arguments):
    return CliRunner().invoke(main, ["check", *arguments])


def test_check_prints_every_law(mine):
    result = check(mine())
    assert result.exit_code == 0
    assert f"{len(LAWS)} pass, 0 fail, {len(IDENTITIES)} not applicable" in result.stdout


def test_check_of_a_broken_method_fails(mine):
    result = check(mine(("return mean", "return w")))
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    assert "it is still the initial one" in " ".join(result.stdout.split())


def test_check_of_a_method_that_crashes_fails(mine):
    result = check(mine(("return mean", "return mean / 0")))
    assert result.exit_code == 1
    assert "TypeError" in result.stdout


@pytest.mark.parametrize("content", [None, "import nothing_of_this_name", "x = 1"])
def test_check_of_what_is_no_method_is_bad_input(content, tmp_path):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    result = check(str(path))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


# --- what is sent ----------------------------------------------------------------------------------------------------

WHOLE, BODY = 5 * 9 + 5 + 3 * 20 + 3, 5 * 9 + 5  # a 3x3 convolution to 5 channels; a head from 20 to 3
SENT = {"fedrep": BODY, "local_only": 0}


@pytest.mark.parametrize("name", METHODS.names())
def test_numbers_sent(name):
    _, cost = engine.play(case(name).world, engine.start(case(name).world), 0)
    assert cost.up == cost.down == SENT.get(name, WHOLE)


def test_fedrep_sends_heads_only_if_asked():
    made = case("fedrep").with_fields(average_head=True)
    _, cost = engine.play(made, engine.start(made), 0)
    assert cost.up == cost.down == WHOLE


# --- every pull is a gradient ----------------------------------------------------------------------------------------


def draw(seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (4, 6), "a.bias": (4,), "b.weight": (3, 4)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


START, RECEIVED, OWN, SLOPE = map(draw, range(4))
RATE = 0.02  # small enough that every pull below is stable
TASK = Task(
    loss=lambda p, batch: sum((p[name] * SLOPE[name]).sum() for name in SLOPE),  # its gradient is SLOPE, everywhere
    parameters=tuple(SLOPE),
    head=("b.weight",),
    weights=("a.weight", "b.weight"),
    start=START,
    epochs=1,
    lr=RATE,
)


def feed(steps: int) -> Feed:
    return Feed(
        draws={"mask": torch.ones(1, steps, 1, dtype=torch.bool)},
        make=lambda draws: Batch(draws["mask"], draws["mask"], draws["mask"]),
        decay=torch.tensor(1.0, dtype=torch.float64),
        whole=[[True] * steps],
        run=plain,
    )


def squared(p: State, q: State) -> Tensor:
    return sum((p[name] - q[name]).square().sum() for name in p)


def module(p: State) -> SimpleNamespace:
    """What the oracles ask of a model: its parameters."""
    return SimpleNamespace(parameters=lambda: iter(p.values()))


SPECTRAL = SpectralCoDistillation(lam_g=2.0, lam_p=3.0, tau=0.4, reference="received")
READING = oracles.spectral.Reading(SPECTRAL.layout, SPECTRAL.content, SPECTRAL.normalise, SPECTRAL.smoothing)
RELEASED = SpectralReleased(state="differentiable", beta=0.3, lam_g=2e5, lam_l=3e3, ratio=0.6)
SEEN = {"v": OWN, "seen": torch.ones((), dtype=torch.float64)}


def spectral_generic(p: State) -> Tensor:
    unit, low = oracles.spectral._unit(module(START), READING), oracles.spectral._low(module(START), READING, 0.4)
    return oracles.spectral._generic(
        module(p), 2.0 * unit, oracles.spectral._spectrum(module(OWN), READING), low, READING
    )


def spectral_personal(p: State) -> Tensor:
    unit = oracles.spectral._unit(module(START), READING)
    return oracles.spectral._personal(
        module(p), 3.0 * unit, oracles.spectral._spectrum(module(RECEIVED), READING), READING
    )


def released_generic(p: State) -> Tensor:
    return oracles.spectral_released._generic(module(p), 2e5, module(OWN), 0.6, constant=False)


def released_personal(p: State) -> Tensor:
    return oracles.spectral_released._personal(module(p), 3e3, 0.3, module(RECEIVED), constant=False)


PULLS: dict[str, tuple[Callable[[int], State], Callable[[State], Tensor]]] = {  # model after n steps; the paper's term
    "fedprox": (
        lambda n: FedProx(mu=2.0).contribute(TASK, RECEIVED, {}, feed(n))[0],
        lambda p: 2.0 / 2 * squared(p, RECEIVED),
    ),
    "ditto": (
        lambda n: Ditto(lam=3.0).personalise(TASK, RECEIVED, OWN, feed(n)),
        lambda p: 3.0 / 2 * squared(p, RECEIVED),
    ),
    "pfedme": (
        lambda n: PFedMe(lam=15.0, inner_steps=n, eta_p=RATE).contribute(TASK, RECEIVED, OWN, feed(1))[1],
        lambda p: 15.0 / 2 * squared(p, RECEIVED),
    ),
    "spectral_gm": (lambda n: SPECTRAL.contribute(TASK, RECEIVED, {"v": OWN}, feed(n))[0], spectral_generic),
    "spectral_pm": (lambda n: SPECTRAL.personalise(TASK, RECEIVED, {"v": OWN}, feed(n))["v"], spectral_personal),
    "released_gm": (lambda n: RELEASED.contribute(TASK, RECEIVED, SEEN, feed(n))[0], released_generic),
    "released_pm": (lambda n: RELEASED.personalise(TASK, RECEIVED, SEEN, feed(n))["v"], released_personal),
}


def differences(value: Callable[[State], Tensor], p: State) -> State:
    """The gradient of ``value`` at ``p`` by central differences, entry by entry."""
    slopes = {name: torch.zeros_like(leaf) for name, leaf in p.items()}
    for name, leaf in p.items():
        for entry in np.ndindex(*leaf.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = leaf.clone()
                moved[entry] += step
                ends.append(float(value({**p, name: moved})))
            slopes[name][entry] = (ends[0] - ends[1]) / 2e-5
    return slopes


@pytest.mark.parametrize("name", PULLS)
def test_every_pull_is_the_gradient_of_its_term(name):
    after, term = PULLS[name]
    first, second = after(1), after(2)
    pull = {n: (first[n] - second[n]) / RATE - SLOPE[n] for n in SLOPE}
    expected = differences(term, first)
    size = max(float(leaf.abs().max()) for leaf in expected.values())
    assert size > 1e-2
    for n in SLOPE:
        torch.testing.assert_close(pull[n], expected[n], rtol=1e-5, atol=1e-6 * size)


@pytest.mark.parametrize("name", PULLS)
def test_every_pull_has_the_right_sign(name):
    """The second step lowers the term below what the same step without the pull leaves of it."""
    after, term = PULLS[name]
    first, second = after(1), after(2)
    assert term(second) < term({n: first[n] - RATE * SLOPE[n] for n in SLOPE})
    assert term(second) >= 0


def test_pfedmes_w_descends_its_envelope():
    """w_k <- w_k - eta lam (w_k - theta), whatever the loss."""
    method = PFedMe(lam=15.0, inner_steps=2, eta_p=RATE, eta=0.01)
    sent, theta = method.contribute(TASK, RECEIVED, OWN, feed(1))
    for n in SLOPE:
        torch.testing.assert_close(sent[n], RECEIVED[n] - 0.01 * 15.0 * (RECEIVED[n] - theta[n]))
        assert (sent[n] - RECEIVED[n]).abs().max() > 1e-3
