"""pFedMe: the generic model descends the Moreau envelopes of the clients' losses; their proximal points are personal.

Dinh et al., Personalized Federated Learning with Moreau Envelopes, NeurIPS 2020, arXiv 2006.08848, Algorithm 1.
Per batch: inner_steps times theta <- theta - eta_p [g(theta) + lam (theta - w_k)], once w_k <- w_k - eta lam
(w_k - theta); then the server mixes (1 - beta) w + beta mean w_k. Stable for eta_p lam < 2. All in ``contribute``.
w: the generic model. c: theta as it was when the client last trained, which is its personal model.
Departures: only the cohort trains (authors' code: every client); uploads weighted by samples and theta kept from batch
to batch, as in the authors' code; theirs adds 0.001 theta to theta's gradient, which is left to the experiment's
weight_decay (it acts on theta alone). The rates are the method's own: the experiment's lr and momentum are not used,
its schedule acts on both. Batch statistics are theta's, mixed like weights.
"""

from dataclasses import dataclass
from typing import Annotated

from pflbench.method import Batch, Feed, Method, State, Task, Tree, Work, axpy, each, fold, gradient, hyper


@dataclass(frozen=True)
class PFedMe(Method):
    lam: Annotated[float, hyper("pull of theta towards w_k", source="authors' README, MNIST", gt=0)] = 15.0
    inner_steps: Annotated[int, hyper("K, steps on theta per batch", source="authors' main.py, caf24b1", ge=1)] = 5
    eta_p: Annotated[float, hyper("rate of theta, per step", source="authors' README, MNIST DNN", gt=0)] = 0.09
    eta: Annotated[float, hyper("rate of w_k, per batch; times lam", source="authors' README, MNIST", gt=0)] = 0.005
    beta: Annotated[float, hyper("server's step towards the mean upload", source="authors' README, MNIST", gt=0)] = 1.0

    def init(self, task: Task, p: State) -> tuple[Tree, Tree]:
        return p, p

    def work(self, task: Task) -> Work:
        return Work(contribute=task.epochs, gradients=self.inner_steps)

    def contribute(self, task: Task, w: Tree, c: Tree, feed: Feed) -> tuple[Tree, Tree]:
        names = task.parameters
        inner, outer = self.eta_p * feed.decay, self.eta * self.lam * feed.decay

        def step(state: Tree, batch: Batch) -> Tree:
            theta, w_k = state
            for _ in range(self.inner_steps):
                grads, buffers = gradient(task.loss, theta, batch, names)
                pull = {n: self.lam * (theta[n] - w_k[n]) + task.weight_decay * theta[n] for n in names}
                theta = {**theta, **buffers, **{n: theta[n] - inner * (grads[n] + pull[n]) for n in names}}
            return theta, {**theta, **{n: w_k[n] - outer * (w_k[n] - theta[n]) for n in names}}

        theta, w_k = fold(step, (w, w), feed)
        return w_k, theta

    def merge(self, w: Tree, mean: Tree) -> Tree:
        return axpy(self.beta, mean, each(lambda leaf: (1 - self.beta) * leaf, w))

    def generic(self, w: State) -> State:
        return w

    def deploy(self, w: State, c: State) -> State:
        return c
