"""One client's vocabulary: a batch, a feed of batches, a fold over them, and SGD.

Everything here speaks of a single client. The engine may run it for a whole cohort at once under ``torch.func.vmap``,
so nothing here looks at a value to decide what to do.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pflbench.core.tree import State, Tree, select, zeros

Loss = Callable[[State, "Batch"], Tensor]
Step = Callable[[Tree, "Batch"], Tree]
Foreach = list[Tensor] | tuple[Tensor, ...]
_buffers: ContextVar[State | None] = ContextVar("buffers", default=None)
_alone: ContextVar[bool] = ContextVar("alone", default=False)
_mask: ContextVar[Tensor | None] = ContextVar("mask", default=None)


@dataclass(frozen=True)
class Batch:
    """Up to B samples of one client. x: [B, channels, height, width]; y: [B]; mask: [B], False marks padding."""

    x: Tensor
    y: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Feed:
    """The batches of one stage of one client, drawn beforehand.

    draws: named tensors [E, S, ...] (``index`` and ``mask``: [E, S, B]); ``make`` turns one step's draws into a Batch.
    whole: [E][S], True where no client of the cohort has a purely padded batch. decay: [], the learning-rate factor
    of the round. run: how to fold (plain Python, or a captured graph).
    """

    draws: dict[str, Tensor]
    make: Callable[[dict[str, Tensor]], Batch]
    decay: Tensor
    whole: Sequence[Sequence[bool]]
    run: Callable[[Step, Tree, "Feed"], Tree]

    def epochs(self, first: int, last: int) -> "Feed":
        """The same feed, restricted to passes ``first`` (included) to ``last`` (excluded) over the data."""
        draws = {name: draw[first:last] for name, draw in self.draws.items()}
        return replace(self, draws=draws, whole=self.whole[first:last])

    def steps(self) -> Iterator[tuple[dict[str, Tensor], bool]]:
        """The draws of every step in order, and whether no client's batch is pure padding."""
        for epoch, row in enumerate(self.whole):
            for step, whole in enumerate(row):
                yield {name: draw[epoch, step] for name, draw in self.draws.items()}, whole


@dataclass(frozen=True)
class Task:
    """What a client has to learn, and how.

    loss(p, batch): mean cross-entropy in nats over the unpadded samples, a scalar. parameters: names that SGD may move
    (the other names of a state are buffers). head: names of the last layer, parameters and buffers. weights: names of
    the weight tensors with two dimensions or more. start: the initial model, a constant. lr: per step.
    """

    loss: Callable[[State, Batch], Tensor]
    parameters: tuple[str, ...]
    head: tuple[str, ...]
    weights: tuple[str, ...]
    start: State
    epochs: int
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0


def fold(step: Step, state: Tree, feed: Feed) -> Tree:
    """``state <- step(state, batch)`` over all batches of the feed. A purely padded batch leaves the state unchanged."""
    return feed.run(step, state, feed)


def plain(step: Step, state: Tree, feed: Feed) -> Tree:
    """``fold`` as a plain loop: the reference."""
    for draws, whole in feed.steps():
        state = guarded(step, state, feed.make(draws), whole)
    return state


def guarded(step: Step, state: Tree, batch: Batch, whole: bool = False) -> Tree:
    """One step of a fold; where the batch is pure padding (never, if ``whole``) the old state comes back."""
    new = step(state, batch)
    return new if whole else select(batch.mask.any(), new, state)


def gradient(loss: Loss, p: State, batch: Batch, names: Sequence[str]) -> tuple[State, State]:
    """Gradient of ``loss`` with respect to the parameters ``names``, and the buffers that the forward pass updated."""

    def value(moving: State) -> tuple[Tensor, State]:
        with collect_buffers() as seen:
            return loss({**p, **moving}, batch), seen

    if not names:
        return {}, value({})[1]
    if not _alone.get():
        result: tuple[State, State] = torch.func.grad(value, has_aux=True)({name: p[name] for name in names})
        return result
    moving = {name: p[name].detach().requires_grad_() for name in names}
    scalar, buffers = value(moving)
    grads = torch.autograd.grad(scalar, list(moving.values()), materialize_grads=True)
    # a convolution of channels_last images gives its gradient in that layout: a state keeps the standard one
    return {name: grad.contiguous() for name, grad in zip(names, grads, strict=True)}, buffers


def sgd(
    loss: Loss, p: State, feed: Feed, task: Task, *, names: Sequence[str] | None = None, lr: float | None = None
) -> State:
    """SGD over the feed from ``p``, with fresh momentum: g <- g + weight_decay p; u <- momentum u + g; p <- p - lr u.

    names: the parameters that move (default: all; the others keep their exact bits). lr: per step, before the round's
    decay (default: the task's).
    """
    moving = tuple(task.parameters if names is None else names)
    rate = (task.lr if lr is None else lr) * feed.decay

    def descended(p: State, velocity: State, grads: State, buffers: State) -> Tree:
        """The same arithmetic on all parameters in one call each: the same bits, with fewer trips through Python."""
        values: Foreach = [p[name] for name in moving]
        slopes: Foreach = [grads[name] for name in moving]
        if task.weight_decay:
            slopes = torch._foreach_add(slopes, torch._foreach_mul(values, task.weight_decay))
        if task.momentum:
            kept = torch._foreach_mul([velocity[name] for name in moving], task.momentum)
            slopes = torch._foreach_add(kept, slopes)
            velocity = dict(zip(moving, slopes, strict=True))
        values = torch._foreach_sub(values, torch._foreach_mul(slopes, rate))
        return {**p, **buffers, **dict(zip(moving, values, strict=True))}, velocity

    def step(state: Tree, batch: Batch) -> Tree:
        p, velocity = state
        grads, buffers = gradient(loss, p, batch, moving)
        if _alone.get():
            return descended(p, velocity, grads, buffers)
        if task.weight_decay:
            grads = {name: grads[name] + task.weight_decay * p[name] for name in moving}
        if task.momentum:
            grads = velocity = {name: task.momentum * velocity[name] + grads[name] for name in moving}
        return {**p, **buffers, **{name: p[name] - rate * grads[name] for name in moving}}, velocity

    still = zeros({name: p[name] for name in moving}) if task.momentum else {}
    result: State = fold(step, (p, still), feed)[0]
    return result


def is_alone() -> bool:
    """Whether no transform is at work, so that one client may be computed by the direct way."""
    return _alone.get()


@contextmanager
def alone() -> Iterator[None]:
    """Inside, no transform is at work: ``gradient`` takes autograd's direct way, and ``sgd`` moves all parameters at once."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


@contextmanager
def collect_buffers() -> Iterator[State]:
    """Collects the buffers (batch statistics) that forward passes inside the block put down."""
    seen: State = {}
    token = _buffers.set(seen)
    try:
        yield seen
    finally:
        _buffers.reset(token)


def put_buffer(name: str, value: Tensor) -> None:
    """A layer's new value for its buffer ``name``; dropped where nobody collects."""
    seen = _buffers.get()
    if seen is not None:
        seen[name] = value.detach()


@contextmanager
def training(mask: Tensor) -> Iterator[None]:
    """Forward passes inside the block train: batch statistics are those of the samples where ``mask: [B]`` is true."""
    token = _mask.set(mask)
    try:
        yield
    finally:
        _mask.reset(token)


def training_mask() -> Tensor | None:
    """[B] which samples count, inside ``training``; None at an evaluation."""
    return _mask.get()
