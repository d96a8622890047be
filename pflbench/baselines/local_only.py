"""Local-only: every client trains its own model and never communicates. The mandatory reference row.

A sampled client makes one stage of local training per round, so that its budget equals FedAvg's.
w: nothing. c: the client's own model v. Departures: none; there is no paper.
"""

from dataclasses import dataclass

from pflbench.method import Feed, Method, State, Task, Tree, Work, sgd


@dataclass(frozen=True)
class LocalOnly(Method):
    def init(self, task: Task, p: State) -> tuple[Tree, Tree]:
        return {}, p

    def work(self, task: Task) -> Work:
        return Work(contribute=0, personalise=task.epochs)

    def contribute(self, task: Task, w: Tree, c: Tree, feed: Feed) -> tuple[Tree, Tree]:
        return {}, c

    def personalise(self, task: Task, w: Tree, c: Tree, feed: Feed) -> Tree:
        return sgd(task.loss, c, feed, task)

    def deploy(self, w: Tree, c: State) -> State:
        return c
