"""Spectral co-distillation as its authors' released code behaves, and that code repaired one step at a time.

Spectral Co-Distillation for Personalized Federated Learning, NeurIPS 2023, arXiv 2401.17124; written from a description
of the code (jimmyc96/spectral-dis-FL 9f6363b), not from the paper: that is the method ``spectral``.
w: the mean of the clients' GMs. c: {"v": PM, "seen": 1 once the client has trained, else 0}.

    released        GM and PM are one object: both phases start at the client's own PM, which is also the reference and
                    the centre of the pull. The spectral term is a constant. A seen client never uses w.
    unaliased       GM starts at w; the received w is the reference of both phases and the centre of the pull.
    reference       The GM phase compares with the PM. Same numbers as ``unaliased``: the term is still a constant.
    differentiable  The term keeps its gradient: KL(PM || log-softmax of GM), mean over the bins of all layers.

The pull is beta ||v - centre||, not squared. Pull and term act from the second batch of every epoch on.
Departures: an unseen client of ``released`` starts at w (the code: the first of the cohort at w, each other at the PM
of the client before it, which a method of one client cannot express); every client's stored PM is evaluated (the code:
the cohort's last); normalisation weights are not in the spectrum; a constant term is not computed; at its centre the
pull is 0 (the code: NaN). Momentum, rate and epochs are the experiment's (the code: 0.5, 0.03, 5).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from pflbench.method import Batch, Feed, Method, State, Task, Tree, Work, fold, gradient, hyper, select, sq_dist, zeros

CODE = "released options.py"


@dataclass(frozen=True)
class SpectralReleased(Method):
    state: Annotated[
        Literal["released", "unaliased", "reference", "differentiable"], hyper("how far repaired", source="ours")
    ] = "released"
    beta: Annotated[float, hyper("pull of the PM to its centre", source=f"{CODE}; README: 5", ge=0)] = 0.2
    lam_g: Annotated[float, hyper("weight of the GM's spectral term", source=CODE, ge=0)] = 0.3
    lam_l: Annotated[float, hyper("weight of the PM's spectral term", source=CODE, ge=0)] = 0.4
    ratio: Annotated[
        float, hyper("share of the bins, first layers first, in the GM's term", source=CODE, gt=0, le=1)
    ] = 0.4

    def init(self, task: Task, p: State) -> tuple[Tree, Tree]:
        return p, {"v": p, "seen": next(iter(p.values())).new_zeros(())}

    def work(self, task: Task) -> Work:
        return Work(contribute=task.epochs, personalise=task.epochs)

    def contribute(self, task: Task, w: Tree, c: Tree, feed: Feed) -> tuple[Tree, Tree]:
        def extra(p: State) -> Tensor | float:
            return self._term(self.lam_g, task, c["v"], p, self.ratio)

        return _train(task, self.deploy(w, c) if self.state == "released" else w, feed, extra), c

    def personalise(self, task: Task, w: Tree, c: Tree, feed: Feed) -> Tree:
        def extra(p: State) -> Tensor:
            squared = sq_dist(*({name: model[name] for name in task.parameters} for model in (p, centre)))
            pull = torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), 0.0)
            return self.beta * pull + self._term(self.lam_l, task, p, w, 1.0)

        own = self.deploy(w, c)
        centre = own if self.state == "released" else w
        return {"v": _train(task, own, feed, extra), "seen": torch.ones_like(c["seen"])}

    def generic(self, w: State) -> State:
        return w

    def deploy(self, w: State, c: Tree) -> State:
        own: State = select(c["seen"] > 0, c["v"], w) if self.state == "released" else c["v"]
        return own

    def _term(self, lam: float, task: Task, pm: State, gm: State, ratio: float) -> Tensor | float:
        """KL over the first ``ratio`` of all bins, mean over them; the softmax is of what already sums to one."""
        if self.state != "differentiable":
            return 0.0
        target, logits = _spectrum(task, pm), torch.log_softmax(_spectrum(task, gm), 0)
        return lam * (torch.xlogy(target, target) - target * logits)[: int(len(target) * ratio)].mean()


def _train(task: Task, start: State, feed: Feed, extra: Callable[[State], Tensor | float]) -> State:
    """SGD on the loss, plus ``extra`` from the second batch of every epoch on."""

    def step(state: Tree, batch: Batch) -> Tree:
        p, velocity, later = state
        grads, buffers = gradient(lambda p, batch: task.loss(p, batch) + later * extra(p), p, batch, task.parameters)
        velocity = {n: task.momentum * velocity[n] + grads[n] + task.weight_decay * p[n] for n in task.parameters}
        moved = {n: p[n] - task.lr * feed.decay * velocity[n] for n in task.parameters}
        return {**p, **buffers, **moved}, velocity, torch.ones_like(later)

    p, velocity = start, zeros({n: start[n] for n in task.parameters})
    for epoch in range(task.epochs):
        p, velocity, _ = fold(step, (p, velocity, torch.zeros_like(feed.decay)), feed.epochs(epoch, epoch + 1))
    return p


def _spectrum(task: Task, p: State) -> Tensor:
    """[bins] amplitudes of every weight's 2-D DFT, full plane, layers laid end to end; the sum is one."""
    amplitude = torch.cat([torch.fft.fft2(p[name].flatten(1)).abs().flatten() for name in task.weights])
    return amplitude / amplitude.sum()
