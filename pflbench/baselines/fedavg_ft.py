"""FedAvg with fine-tuning: FedAvg's generic model, which every client trains a little before it uses it.

Analysed by Collins et al., FedAvg with Fine Tuning: Local Updates Lead to Representation Learning, NeurIPS 2022,
arXiv 2205.13692; training is Algorithm 1 of FedAvg (McMahan et al., AISTATS 2017, arXiv 1602.05629).
w: the generic model. c: nothing between rounds; while a model is deployed, {"v": the fine-tuned model}.
Departures: fine-tuning is evaluated at every evaluation, from the current w, not only after the last round; its
epochs come on top of the training budget, and its rate is that of training.
"""

from dataclasses import dataclass
from typing import Annotated

from pflbench.method import Feed, Method, State, Task, Tree, Work, hyper, sgd


@dataclass(frozen=True)
class FedAvgFineTuned(Method):
    ft_epochs: Annotated[
        int, hyper("passes over the local data before deployment", source="FedRep authors' code, FedAvg rows", ge=1)
    ] = 10
    head_only: Annotated[bool, hyper("fine-tune the last layer only", source="ours; FedRep authors' code: yes")] = False

    def init(self, task: Task, p: State) -> tuple[Tree, Tree]:
        return p, {}

    def work(self, task: Task) -> Work:
        return Work(contribute=task.epochs, adapt=self.ft_epochs)

    def contribute(self, task: Task, w: Tree, c: Tree, feed: Feed) -> tuple[Tree, Tree]:
        return sgd(task.loss, w, feed, task), c

    def adapt(self, task: Task, w: Tree, c: Tree, feed: Feed) -> Tree:
        head = [name for name in task.parameters if name in task.head]
        return {"v": sgd(task.loss, w, feed, task, names=head if self.head_only else None)}

    def generic(self, w: State) -> State:
        return w

    def deploy(self, w: State, c: dict[str, State]) -> State:
        return c.get("v", w)
