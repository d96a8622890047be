"""FedAvg: one generic model, averaged over the clients' local training.

McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017,
arXiv 1602.05629, Algorithm 1. w: the generic model. c: nothing. Departures: none known.
"""

from dataclasses import dataclass

from pflbench.method import Feed, Method, State, Task, Tree, sgd


@dataclass(frozen=True)
class FedAvg(Method):
    def init(self, task: Task, p: State) -> tuple[Tree, Tree]:
        return p, {}

    def contribute(self, task: Task, w: Tree, c: Tree, feed: Feed) -> tuple[Tree, Tree]:
        return sgd(task.loss, w, feed, task), c

    def generic(self, w: State) -> State:
        return w

    def deploy(self, w: Tree, c: Tree) -> None:
        return None
