"""FedRep: clients share a body and keep their own heads; each round trains the head first, then the body.

Collins et al., Exploiting Shared Representations for Personalized Federated Learning, ICML 2021, arXiv 2102.07078,
Algorithm 1. The half that does not train keeps its exact bits. All work is in ``contribute``.
w: the body, with average_head also the clients' mean head. c: this client's head. Names of ``task.head`` are head.
Without average_head there is no generic model.
Departures: uploads weighted by samples (authors' code: unweighted for CIFAR and MNIST); no extra round of head training
at the end; a client that was never drawn deploys its first head (authors' code: the average head). Batch statistics of
the body move in both halves, as in the authors' code.
"""

from dataclasses import dataclass
from typing import Annotated

from pflbench.method import Feed, Method, State, Task, Tree, Work, hyper, sgd


@dataclass(frozen=True)
class FedRep(Method):
    head_epochs: Annotated[
        int, hyper("passes that train the head", source="paper, experiments; authors' scripts", ge=0)
    ] = 10
    body_epochs: Annotated[
        int, hyper("passes that train the body", source="authors' script for CIFAR-10 with 2 classes, d82e629", ge=1)
    ] = 1
    average_head: Annotated[bool, hyper("send and average the heads too, for a generic model", source="ours")] = False

    def init(self, task: Task, p: State) -> tuple[Tree, Tree]:
        head = {name: p[name] for name in task.head}
        return {name: p[name] for name in p if self.average_head or name not in head}, head

    def work(self, task: Task) -> Work:
        return Work(contribute=self.head_epochs + self.body_epochs)

    def contribute(self, task: Task, w: Tree, c: Tree, feed: Feed) -> tuple[Tree, Tree]:
        head = [name for name in task.parameters if name in c]
        body = [name for name in task.parameters if name not in c]
        p = sgd(task.loss, {**w, **c}, feed.epochs(0, self.head_epochs), task, names=head)
        p = sgd(task.loss, p, feed.epochs(self.head_epochs, self.head_epochs + self.body_epochs), task, names=body)
        return {name: p[name] for name in w}, {name: p[name] for name in c}

    def generic(self, w: State) -> State | None:
        return w if self.average_head else None

    def deploy(self, w: State, c: State) -> State:
        return {**w, **c}
