"""What an oracle is given and returns, and the few things that all of them do."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
Draw = Callable[[int, int, str, int], list[list[Tensor]]]
Penalty = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Problem:
    """A federation as plain data, in float64.

    module: the first model; its last layer's names start with ``head.``. x: [C] of [n, channels, height, width];
    y: [C] of [n]; weight: [C], before normalisation. cohorts: per round, clients in order. batches(round, client,
    stage, epochs): [E][S] positions into the client's samples. decay: factor on lr per round, the last for fine-tuning.
    """

    module: nn.Module
    x: Sequence[Tensor]
    y: Sequence[Tensor]
    weight: Sequence[float]
    cohorts: Sequence[Sequence[int]]
    batches: Draw
    decay: Sequence[float]
    epochs: int
    lr: float
    momentum: float
    weight_decay: float


class Result(NamedTuple):
    """After the last round: what the server holds, what every client holds, and the model it would use, if any."""

    server: State
    clients: list[State]
    deployed: list[State] | None


def state(module: nn.Module) -> State:
    """Parameters and running statistics by name, copied."""
    return {name: leaf.detach().clone() for name, leaf in module.state_dict().items() if leaf.is_floating_point()}


def load(module: nn.Module, values: State) -> None:
    """Writes ``values`` into the module's own memory; names that are missing keep what they hold."""
    module.load_state_dict(values, strict=False)


def average(models: Sequence[State], weight: Sequence[float]) -> State:
    """The weighted mean of models, weights normalised here."""
    total = sum(weight)
    return {
        name: sum((share / total * model[name] for model, share in zip(models, weight, strict=True)), torch.zeros(()))
        for name in models[0]
    }


def squared_distance(module: nn.Module, centre: nn.Module) -> Tensor:
    """Over parameters; the centre is a constant."""
    pairs = zip(module.parameters(), centre.parameters(), strict=True)
    return sum(((p - q.detach()) ** 2).sum() for p, q in pairs)


def train(
    problem: Problem,
    round: int,
    client: int,
    module: nn.Module,
    batches: Iterable[Sequence[Tensor]],
    penalty: Penalty | None = None,
    parameters: Iterable[nn.Parameter] | None = None,
    first_free: bool = False,
) -> None:
    """torch.optim.SGD on cross-entropy plus a penalty, in place; first_free: no penalty in an epoch's first batch."""
    optimizer = torch.optim.SGD(
        list(module.parameters() if parameters is None else parameters),
        lr=problem.lr * problem.decay[round],
        momentum=problem.momentum,
        weight_decay=problem.weight_decay,
    )
    module.train()
    for epoch in batches:
        for number, batch in enumerate(epoch):
            module.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(module(problem.x[client][batch]), problem.y[client][batch])
            if penalty is not None and not (first_free and number == 0):
                loss = loss + penalty(module)
            loss.backward()
            optimizer.step()


def copies(module: nn.Module, count: int) -> list[nn.Module]:
    """``count`` modules with memory of their own."""
    return [copy.deepcopy(module) for _ in range(count)]
