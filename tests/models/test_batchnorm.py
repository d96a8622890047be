"""Batch statistics: torch's on full batches, blind to padding, in the aggregate or kept at the client as the policy says."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from worlds import SIZES, played, tiny, world

from pflbench.baselines import METHODS
from pflbench.core import tree
from pflbench.core.local import collect_buffers, training
from pflbench.engine import engine
from pflbench.engine.evaluation import evaluate
from pflbench.models.batchnorm import BatchNorm2d, LocalStatistics
from pflbench.models.batchnorm import name as name_layers

PERSONAL = [
    name for name in METHODS.names() if name not in ("fedavg", "fedprox")
]  # those that deploy a model of their own
MEAN = "body.1.running_mean"
normed = partial(tiny, norm=True)


def method(name, policy="aggregate"):
    made = METHODS.get(name)()
    return LocalStatistics(made) if policy == "local" else made


def layer(channels=3, seed=0):
    """A layer with random weights and statistics, in float64."""
    chance = torch.Generator().manual_seed(seed)
    made = BatchNorm2d(channels).double()
    for value in (*made.parameters(), *made.buffers()):
        value.data.uniform_(0.5, 1.5, generator=chance)
    holder = nn.Sequential(made)
    name_layers(holder)
    return made


def pair(seed=0):
    """The same layer, ours and torch's."""
    ours, theirs = layer(seed=seed), nn.BatchNorm2d(3).double()
    theirs.load_state_dict({**ours.state_dict(), "num_batches_tracked": torch.tensor(0)})
    return ours, theirs


def forward(made, x, mask=None):
    """(output, new statistics) in training; the layer itself keeps its old ones."""
    mask = torch.ones(len(x), dtype=torch.bool) if mask is None else mask
    with training(mask), collect_buffers() as seen:
        y = made(x)
    return y, {key.removeprefix(f"{made.key}."): value for key, value in seen.items()}


def images(seed, count=5):
    return 2 + 3 * torch.randn(count, 3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_equals_torch_on_full_batches():
    """Outputs, gradients and running statistics over several batches, then an evaluation."""
    ours, theirs = pair()
    for seed in range(3):
        x, y = (images(seed).requires_grad_() for _ in range(2))
        got, statistics = forward(ours, x)
        expected = theirs(y)
        assert torch.allclose(got, expected, rtol=1e-12, atol=1e-12)
        for name, value in statistics.items():
            assert torch.allclose(value, getattr(theirs, name), rtol=1e-12)
            getattr(ours, name).copy_(value)
        weight = images(9)
        (got * weight).sum().backward()
        (expected * weight).sum().backward()
        assert torch.allclose(x.grad, y.grad, rtol=1e-9, atol=1e-12)
        assert torch.allclose(ours.weight.grad, theirs.weight.grad, rtol=1e-10)
        assert torch.allclose(ours.bias.grad, theirs.bias.grad, rtol=1e-10, atol=1e-12)
    theirs.eval()
    assert torch.allclose(ours(images(7)), theirs(images(7)), rtol=1e-12, atol=1e-12)


def test_masked_samples_have_no_influence():
    """Whatever stands in the padding: outputs, statistics and gradients are torch's on the samples that count."""
    ours, theirs = pair()
    mask = torch.tensor([True, False, True, True, False])
    x = images(1)
    x[~mask] = 1e3 * images(2)[~mask]
    x.requires_grad_()
    got, statistics = forward(ours, x, mask)
    real = x.detach()[mask].clone().requires_grad_()
    expected = theirs(real)
    assert torch.allclose(got[mask], expected, rtol=1e-12, atol=1e-12)
    assert all(torch.allclose(value, getattr(theirs, name), rtol=1e-12) for name, value in statistics.items())
    weight = images(9)[mask]
    (got[mask] * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.allclose(x.grad[mask], real.grad, rtol=1e-9, atol=1e-12)
    assert float(x.grad[~mask].abs().max()) == 0


def test_an_evaluation_uses_the_running_statistics_and_moves_nothing():
    ours = layer()
    with collect_buffers() as seen:
        y = ours(images(3))
    assert not seen
    scale = ours.weight / (ours.running_var + ours.eps).sqrt()
    expected = (images(3) - ours.running_mean[:, None, None]) * scale[:, None, None] + ours.bias[:, None, None]
    assert torch.allclose(y, expected, rtol=1e-12, atol=1e-12)


def gap(one, other):
    leaves = tree.flatten(tree.each(lambda a, b: (a.double() - b.double()).abs().max(), tuple(one), tuple(other)))
    return max(float(leaf) for leaf in leaves.values())


@pytest.mark.parametrize("policy", ["aggregate", "local"])
@pytest.mark.parametrize("name", METHODS.names())
def test_loop_equals_vmap(name, policy):
    """Clients with less than a batch and with one sample among them; models and scores."""
    loop, vmap = (world(method(name, policy), model=normed, engine=way) for way in ("loop", "vmap"))
    states = [played(made) for made in (loop, vmap)]
    assert gap(*states) < 1e-10
    assert evaluate(loop, states[0], 2) == evaluate(vmap, states[1], 2)


def uploads(made, federation):
    """(cohort, uploads, client states after ``contribute``) of round 0."""
    cohort = engine.cohort_of(made, 0)
    rows = tree.rows(federation.c, torch.as_tensor(cohort))
    epochs = made.method.work(made.task).contribute
    return cohort, *engine.stage(made, "contribute", made.method.contribute, federation.w, rows, cohort, 0, epochs)


@pytest.mark.parametrize("policy", ["aggregate", "local"])
def test_buffers_are_in_the_aggregate(policy):
    """The server's statistics are the weighted mean of the clients', which have moved and differ. Mutation 14."""
    made = world(method("fedavg", policy), model=normed)
    federation = engine.start(made)
    cohort, sent, _ = uploads(made, federation)
    moved = sent[MEAN] - federation.w[MEAN]
    assert moved.abs().amax(1).min() > 1e-3
    assert (sent[MEAN][0] - sent[MEAN][1]).abs().max() > 1e-3
    after, _ = engine.play(made, federation, 0)
    weight = torch.as_tensor(made.weight[cohort] / made.weight[cohort].sum())
    for key in (MEAN, "body.1.running_var"):
        assert torch.allclose(after.w[key], (weight[:, None] * sent[key]).sum(0), rtol=1e-12)


def test_policy_aggregate_starts_every_client_from_the_server_s_statistics():
    """FedAvg's next upload changes if and only if what the server sends changes."""
    made = world(method("fedavg"), model=normed)
    federation = played(made, 1)
    shifted = federation._replace(w={**federation.w, MEAN: federation.w[MEAN] + 1})
    first, second = (uploads(made, state)[1] for state in (federation, shifted))
    assert (second[MEAN] - first[MEAN]).abs().min() > 1e-3


def test_policy_local_keeps_statistics_at_the_client():
    """A client goes on from its own; the server's reach it only until it has trained."""
    made = world(method("fedavg", "local"), model=normed)
    start = engine.start(made)
    cohort, sent, kept = uploads(made, start)
    assert torch.equal(kept["buffers"][MEAN], sent[MEAN])
    assert kept["seen"].all()
    assert not start.c["seen"].any()
    after = played(made, 1)
    assert after.c["seen"].nonzero().flatten().tolist() == cohort.tolist()
    assert torch.equal(after.c["buffers"][MEAN][torch.as_tensor(cohort)], sent[MEAN])
    everyone = world(method("fedavg", "local"), model=normed, cohort_size=len(SIZES))
    shifted = after._replace(w={**after.w, MEAN: after.w[MEAN] + 1})
    first, second = (uploads(everyone, state)[1][MEAN] for state in (after, shifted))
    changed = (second - first).abs().amax(1)
    assert (changed[torch.as_tensor(cohort)] == 0).all()
    new = np.setdiff1d(np.arange(len(SIZES)), cohort)
    assert (changed[torch.as_tensor(new)] > 1e-3).all()
    received = [made.method.received(after.w, tree.rows(after.c, torch.tensor(k))) for k in (cohort[0], new[0])]
    assert torch.equal(received[0][MEAN], after.c["buffers"][MEAN][cohort[0]])
    assert torch.equal(received[1][MEAN], after.w[MEAN])


@pytest.mark.parametrize("policy", ["aggregate", "local"])
@pytest.mark.parametrize("name", PERSONAL)
def test_personal_training_moves_the_personal_model_s_statistics(name, policy):
    """At every client of the cohort, what it would deploy has other statistics than before. Mutation 12."""
    made = world(method(name, policy), model=normed)
    start = engine.start(made)
    deploy = lambda state, k: made.method.deploy(state.w, tree.each(lambda leaf: leaf[k], state.c))  # noqa: E731
    before = {k: tree.clone(deploy(start, k)) for k in range(len(SIZES))}
    after, cost = engine.play(made, start, 0)
    for k in cost.cohort:
        if SIZES[k] > 1:
            assert (deploy(after, k)[MEAN] - before[k][MEAN]).abs().max() > 1e-3


def test_running_means_of_one_client_by_hand():
    """One batch, momentum 0.1: a tenth of the mean over images and pixels of what the convolution gives."""
    made = world(method("local_only"), model=normed, cohort_size=len(SIZES), momentum=0.0, weight_decay=0.0, epochs=1)
    client = 2
    assert SIZES[client] == 4  # one batch: one step
    mean = engine.play(made, engine.start(made), 0)[0].c[MEAN][client]
    x = made.pixels.images(torch.as_tensor(made.train[client]))
    convolved = nn.functional.conv2d(x, made.task.start["body.0.weight"], made.task.start["body.0.bias"])
    assert torch.allclose(mean, 0.1 * convolved.mean((0, 2, 3)), rtol=1e-10)
