"""Ditto: a personal model beside FedAvg's generic one, pulled towards the generic model received.

Li et al., Ditto: Fair and Robust Federated Learning Through Personalization, ICML 2021, arXiv 2012.04221, Algorithm 1.
Client k keeps v_k = argmin F_k(v) + lam/2 ||v - w||^2; the gradient of the pull is lam (v - w).
w: the generic model. c: the personal model v.
Departures: cohort drawn evenly and uploads weighted by samples (authors' code: drawn in proportion to samples, mean
unweighted); v sees batches of its own after w's, counted in epochs (authors' code: the same batches, alternating;
here and there as many steps for v as for w).
"""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from pflbench.method import Batch, Feed, Method, State, Task, Tree, Work, hyper, sgd, sq_dist


@dataclass(frozen=True)
class Ditto(Method):
    lam: Annotated[float, hyper("pull of v towards w", source="authors' run_*_ditto_lam1.sh, 26d9b29", ge=0)] = 1.0
    personal_epochs: Annotated[
        int | None, hyper("passes over the local data for v; None: as many as for w", source="authors, 26d9b29", ge=1)
    ] = None

    def init(self, task: Task, p: State) -> tuple[Tree, Tree]:
        return p, p

    def work(self, task: Task) -> Work:
        return Work(contribute=task.epochs, personalise=self.personal_epochs or task.epochs)

    def contribute(self, task: Task, w: Tree, c: Tree, feed: Feed) -> tuple[Tree, Tree]:
        return sgd(task.loss, w, feed, task), c

    def personalise(self, task: Task, w: Tree, c: Tree, feed: Feed) -> Tree:
        def near(p: State, batch: Batch) -> Tensor:
            return task.loss(p, batch) + self.lam / 2 * sq_dist(p, w)

        return sgd(near, c, feed, task)

    def generic(self, w: State) -> State:
        return w

    def deploy(self, w: State, c: State) -> State:
        return c
