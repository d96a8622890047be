"""One round of each baseline with the arithmetic written out. Every number is a binary fraction, so equality is exact.

Two clients, lr 1/8, one batch per epoch. A: one sample (x, y) = (1, 4). B: three samples (2, 2). The model is one
number u, the loss the mean of (u x - y)^2 / 2, so that the gradient is u - 4 at A and 4 u - 4 at B. Uploads weigh 1/4
and 3/4. The first u is 0.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pflbench.baselines.ditto import Ditto
from pflbench.baselines.fedavg import FedAvg
from pflbench.baselines.fedprox import FedProx
from pflbench.baselines.fedrep import FedRep
from pflbench.baselines.pfedme import PFedMe
from pflbench.core.local import Batch, Task
from pflbench.core.method import Method
from pflbench.core.tree import State
from pflbench.engine import engine
from pflbench.engine.engine import Federation, World
from pflbench.engine.task import Network, Pixels


def product(p: State) -> Tensor:
    """The model's one number: the product of all its parameters."""
    return torch.stack(list(p.values())).prod()


def loss(p: State, batch: Batch) -> Tensor:
    error = product(p) * batch.x.flatten() - batch.y
    return (error.square() / 2 * batch.mask).sum() / batch.mask.sum()


@pytest.fixture(params=["loop", "vmap"])
def world_of(request):
    def build(method: Method, epochs: int = 1, start: State | None = None) -> World:
        first = start or {"u": torch.zeros((), dtype=torch.float64)}
        unit = torch.full((1, 1, 1), 1 / 255, dtype=torch.float64)  # pixels are the integers themselves
        x = torch.tensor([1, 2, 2, 2], dtype=torch.uint8).view(4, 1, 1, 1)
        pixels = Pixels(x, torch.tensor([4, 2, 2, 2]), torch.zeros_like(unit), unit)
        head = tuple(name for name in first if name == "head")
        task = Task(loss, tuple(first), head, (), first, epochs, lr=1 / 8)
        parts = [np.array([0]), np.array([1, 2, 3])]
        return World(
            method=method,
            task=task,
            network=Network(nn.Identity(), "float64"),
            pixels=pixels,
            official=pixels,
            train=parts,
            test=parts,
            validation=[],
            weight=np.array([1.0, 3.0]),
            cohort_size=2,
            batch_size=3,
            seed=0,
            decay=lambda round: 1.0,
            engine=request.param,
            chunk=2,
        )

    return build


def rounds(world: World, count: int) -> Federation:
    federation = engine.start(world)
    for round in range(count):
        federation, _ = engine.play(world, federation, round)
    return federation


def test_fedavg(world_of):
    # A: 0 -> 0 + 4/8 = 1/2 -> 1/2 + 3.5/8 = 15/16.   B: 0 -> 0 + 4/8 = 1/2 -> 1/2 + 2/8 = 3/4.
    # w = 15/16 / 4 + 3 * 3/4 / 4 = 51/64.
    assert rounds(world_of(FedAvg(), epochs=2), 1).w["u"] == 51 / 64


def test_fedprox(world_of):
    # mu = 2. A: 0 -> 4/8 = 1/2, the pull being 2 (0 - 0) -> 1/2 + (7/2 - 2 * 1/2)/8 = 13/16
    # -> 13/16 + (51/16 - 2 * 13/16)/8 = 129/128.   B: 0 -> 1/2 -> 1/2 + (2 - 2 * 1/2)/8 = 5/8
    # -> 5/8 + (3/2 - 2 * 5/8)/8 = 21/32.   w = (129/128 + 3 * 84/128)/4.
    assert rounds(world_of(FedProx(mu=2.0), epochs=3), 1).w["u"] == (129 + 3 * 84) / 512


def test_ditto_is_pulled_to_the_model_received(world_of):
    # lam = 2. Round 0: w = 51/64 as FedAvg; v = 0 + 4/8 = 1/2 at both, w received being 0.
    # Round 1, w received is 51/64: A: v = 1/2 + (3.5 + 2 (51/64 - 1/2))/8 = 259/256;
    # B: v = 1/2 + (2 + 2 (51/64 - 1/2))/8 = 211/256.
    # w: A: 51/64 + (4 - 51/64)/8 = 613/512 -> + (4 - 613/512)/8 = 6339/4096.
    #    B: 51/64 + (4 - 51/16)/8 = 115/128 -> + (4 - 115/32)/8 = 243/256.   Mean: (6339 + 3 * 3888)/16384.
    federation = rounds(world_of(Ditto(lam=2.0, personal_epochs=1), epochs=2), 2)
    assert federation.c["u"].tolist() == [259 / 256, 211 / 256]
    assert federation.w["u"] == (6339 + 3 * 3888) / 16384


def test_pfedme(world_of):
    # lam = 2, K = 2, eta_p = 1/8, eta = 1/4, beta = 1/2. theta and w_k start at 0.
    # A: theta = 4/8 = 1/2 -> 1/2 + (3.5 - 2 * 1/2)/8 = 13/16;  w_k = 0 + 1/4 * 2 * 13/16 = 13/32.
    # B: theta = 1/2 -> 1/2 + (2 - 2 * 1/2)/8 = 5/8;             w_k = 5/16.
    # w = 1/2 * 0 + 1/2 * (13/32 + 3 * 10/32)/4 = 43/256.
    federation = rounds(world_of(PFedMe(lam=2.0, inner_steps=2, eta_p=1 / 8, eta=1 / 4, beta=1 / 2)), 1)
    assert federation.c["u"].tolist() == [13 / 16, 5 / 8]
    assert federation.w["u"] == 43 / 256


def test_pfedme_keeps_theta_from_batch_to_batch(world_of):
    # The same with two epochs, so two batches. A: theta 13/16, w_k 13/32 as above; then theta -> 13/16
    # + (4 - 13/16 - 2 (13/16 - 13/32))/8 = 13/16 + 19/64 = 71/64 -> 71/64 + (4 - 71/64 - 2 (71/64 - 13/32))/8
    # = 71/64 + 95/512 = 663/512;  w_k = 13/32 + (663/512 - 13/32)/2 = 871/1024.
    federation = rounds(world_of(PFedMe(lam=2.0, inner_steps=2, eta_p=1 / 8, eta=1 / 4, beta=1.0), epochs=2), 1)
    assert federation.c["u"][0] == 663 / 512


def test_fedrep(world_of):
    # u = body * head, from body 1 and head 0. A: head = 0 + 1 * 4/8 = 1/2, then body = 1 + 1/2 * 3.5/8 = 39/32.
    # B: d/du = 4 u - 4: head = 0 + 1 * 4/8 = 1/2, then body = 1 + 1/2 * 2/8 = 9/8.
    # The server averages bodies only: (39/32 + 3 * 36/32)/4 = 147/128.
    start = {"body": torch.ones((), dtype=torch.float64), "head": torch.zeros((), dtype=torch.float64)}
    world = world_of(FedRep(head_epochs=1, body_epochs=1), start=start)
    federation = rounds(world, 1)
    assert federation.w == {"body": torch.tensor(147 / 128, dtype=torch.float64)}
    assert {name: head.tolist() for name, head in federation.c.items()} == {"head": [1 / 2, 1 / 2]}
    assert world.method.generic(federation.w) is None
