"""FedProx: FedAvg whose local training is pulled towards the model it started from.

Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020, arXiv 1812.06127, Algorithm 2. Client k
minimises F_k(u) + mu/2 ||u - w||^2, w the received model; the gradient of the pull is mu (u - w).
w: the generic model. c: nothing.
Departures: cohort drawn evenly and uploads weighted by samples, as in the paper's experiments (section 5.1) and not
as in Algorithm 2; every client finishes its epochs (no stragglers); mu is constant, not adapted. Momentum and weight
decay, where the experiment asks for them, act on the whole gradient.
"""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from pflbench.method import Batch, Feed, Method, State, Task, Tree, hyper, sgd, sq_dist


@dataclass(frozen=True)
class FedProx(Method):
    mu: Annotated[
        float,
        hyper("pull towards the received model", source="paper, section 5.3.2: best on 3 of 5 data sets", ge=0),
    ] = 1.0

    def init(self, task: Task, p: State) -> tuple[Tree, Tree]:
        return p, {}

    def contribute(self, task: Task, w: Tree, c: Tree, feed: Feed) -> tuple[Tree, Tree]:
        def near(p: State, batch: Batch) -> Tensor:
            return task.loss(p, batch) + self.mu / 2 * sq_dist(p, w)

        return sgd(near, w, feed, task), c

    def generic(self, w: State) -> State:
        return w

    def deploy(self, w: Tree, c: Tree) -> State | None:
        return None
