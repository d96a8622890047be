"""Memory, by hand: published sizes, what a real federation weighs, and a placement that follows the machine."""

import subprocess
import sys
from dataclasses import replace

import pytest
from worlds import world

from pflbench.baselines import METHODS
from pflbench.core import tree
from pflbench.core.errors import BadInput
from pflbench.engine import engine
from pflbench.engine.memory import SHARE, STEP, Budget, Placement, Sizes, budget, parts, place
from pflbench.models import zoo
from pflbench.models.zoo import MODELS

GIB = 2**30
RESNET = 11_173_962 + 9_600  # parameters of ResNet-18 in CIFAR form, and its running means and variances
CIFAR = Sizes(
    images=60_000, pixels=3072, clients=100, cohort=20, together=20, block=20, batch=8, longest=800, model=RESNET, server=RESNET,
    client=RESNET, upload=RESNET, activations=600_000,
)  # fmt: skip


def test_cifar_10_with_a_resnet_18_by_hand():
    """Ditto: one personal model a client."""
    need = budget(CIFAR)
    assert need.data == 60_000 * 3080 == 184_800_000
    assert need.bank == 100 * 11_183_562 * 4 == 4_473_424_800
    assert need.working == 4 * (2 * RESNET + 20 * 3 * RESNET + 20 * (STEP * RESNET + 8 * 600_000))
    assert need.gathered == 20 * 800 * 3080
    evaluated = budget(replace(CIFAR, block=64))  # 64 states and 64 models are more than 20 states twice and 20 uploads
    assert evaluated.working == 4 * (2 * RESNET + 64 * 2 * RESNET + 20 * (STEP * RESNET + 8 * 600_000))


def test_the_model_s_numbers_are_those_counted_here():
    module = zoo.build(MODELS.choose("resnet18", {}), (3, 32, 32), 10, 0).module
    assert sum(value.numel() for value in module.state_dict().values()) == RESNET


@pytest.mark.parametrize("name", METHODS.names())
def test_the_bank_weighs_what_is_said(name):
    """Bytes of the state before round 0, in float64."""
    made = world(METHODS.get(name)())
    federation = engine.start(made)
    of = lambda state: tree.numbers(state)  # noqa: E731
    sizes = replace(
        CIFAR, clients=made.clients, client=of(federation.c) // made.clients, server=of(federation.w), number=8
    )
    real = sum(leaf.numel() * leaf.element_size() for leaf in tree.flatten(federation.c).values())
    assert budget(sizes).bank == real
    images = replace(sizes, images=len(made.pixels.x), pixels=made.pixels.x[0].numel())
    assert budget(images).data == made.pixels.x.nbytes + made.pixels.y.nbytes


def test_the_bank_grows_with_the_clients_and_nothing_else_does():
    small, large = budget(CIFAR), budget(replace(CIFAR, clients=10_000))
    assert large.bank == 100 * small.bank
    assert (large.data, large.working, large.gathered) == (small.data, small.working, small.gathered)


NEED = Budget(data=10 * GIB, bank=30 * GIB, working=5 * GIB, gathered=GIB)


@pytest.mark.parametrize(
    ("device", "host", "expected"),
    [
        (80, 64, Placement("device", "device")),  # 68 to plan for: all 45
        (50, 64, Placement("device", "host")),  # 42.5: round and data; the bank in 54.4 of the host
        (50, 30, Placement("device", "file")),  # the host has 25.5
        (16, 64, Placement("host", "host")),  # 13.6: the round; data and bank in 54.4
        (16, 46, Placement("host", "file")),  # 39.1 of the host: the data are there, 29.1 are left
        (None, 64, Placement("device", "device")),
        (None, 50, Placement("device", "file")),  # 42.5
    ],
)
def test_placement_by_hand(device, host, expected):
    assert place(NEED, None if device is None else device * GIB, host * GIB) == expected


def test_a_round_that_does_not_fit_is_refused():
    with pytest.raises(BadInput, match=r"^chunk = 5\.0 GiB for a round: too large for 4\.2 GiB; lower it"):
        place(NEED, 5 * GIB, 64 * GIB)
    with pytest.raises(BadInput, match=r"^chunk = 6\.0 GiB for a round and its images: too large for 5\.9 GiB"):
        place(NEED, 7 * GIB, 64 * GIB)
    assert place(NEED, int(6 * GIB / SHARE) + 2, 64 * GIB) == Placement("host", "host")


def test_ten_thousand_clients_with_a_cnn_fit_anywhere():
    """0.9 M numbers a client: 33.5 GiB of states, on a GPU of 80 GB; in a file beside 16 GB and 32 GB of memory."""
    cnn = dict.fromkeys(("model", "server", "client", "upload"), 900_000)
    need = budget(replace(CIFAR, clients=10_000, activations=60_000, **cnn))
    assert need.bank == 36_000_000_000
    assert place(need, 80 * 10**9, 128 * 10**9) == Placement("device", "device")
    assert place(need, 16 * 10**9, 128 * 10**9) == Placement("device", "host")
    assert place(need, 16 * 10**9, 32 * 10**9) == Placement("device", "file")


def test_the_plan_in_words():
    told = parts(NEED, Placement("host", "file"))
    assert [f"{part}: {held}" for part, held in told.items()] == [
        "data: 10,240.0 MiB, host",
        "client states: 30,720.0 MiB, file",
        "a round's work: 5,120.0 MiB, device",
        "a round's images: 1,024.0 MiB, device",
    ]
    assert len(parts(NEED, Placement("device", "file"))) == 3


def test_the_arithmetic_needs_no_torch():
    code = "import sys, pflbench.engine.memory; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
