"""Batch statistics in a federation: a BatchNorm whose buffers are values, and the policy that keeps them local.

Buffers are part of a model's state, one copy per client. Policy ``aggregate``: they are averaged like weights.
Policy ``local``: they stay at the client (Li et al., FedBN, ICLR 2021, arXiv 2102.07623, keeps the affine part local as
well; here only the statistics are). The policy is a field of the experiment and the same for every method.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pflbench.core.local import Feed, Task, put_buffer, training_mask
from pflbench.core.method import Method, Work
from pflbench.core.tree import State, Tree


class BatchNorm2d(nn.Module):
    """Ioffe and Szegedy, ICML 2015, arXiv 1502.03167, over the unpadded samples of a batch.

    Equal to ``torch.nn.BatchNorm2d`` on full batches. New running statistics are put down as values, never written in
    place, so that the layer works for a whole cohort at once. ``key``: its prefix in the model's state, set by ``name``.
    """

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps, self.key = momentum, eps, ""
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, channels, height, width]."""
        mask, given = training_mask(), x.dtype
        x = x.to(self.running_mean.dtype)  # statistics are kept, and so computed, in float32 at least
        mean, variance = self.running_mean, self.running_var
        if mask is not None:
            share = mask.to(x.dtype)[:, None, None, None]
            count = mask.sum().clamp(min=1) * x.shape[2] * x.shape[3]
            mean = (x * share).sum((0, 2, 3)) / count
            variance = ((x - mean[:, None, None]).square() * share).sum((0, 2, 3)) / count
            unbiased = variance * count / (count - 1).clamp(min=1)
            put_buffer(f"{self.key}.running_mean", torch.lerp(self.running_mean, mean.detach(), self.momentum))
            put_buffer(f"{self.key}.running_var", torch.lerp(self.running_var, unbiased.detach(), self.momentum))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]).to(given)


def name(module: nn.Module) -> None:
    """Tells every BatchNorm2d of ``module`` its prefix in the state."""
    for key, layer in module.named_modules():
        if isinstance(layer, BatchNorm2d):
            layer.key = key


@dataclass(frozen=True)
class LocalStatistics(Method):
    """Any method with batch statistics kept at the client. c: the method's own c, this client's buffers, and a flag.

    A client that has not trained yet uses the server's. The server holds the cohort's mean buffers for that and for the
    official test of the generic model.
    """

    method: Method

    def init(self, task: Task, p: State) -> tuple[Tree, Tree]:
        w, c = self.method.init(task, p)
        first = next(iter(p.values()))
        return w, {
            "method": c,
            "buffers": buffers(task, p),
            "seen": torch.zeros((), dtype=torch.bool, device=first.device),
        }

    def work(self, task: Task) -> Work:
        return self.method.work(task)

    def contribute(self, task: Task, w: Tree, c: Tree, feed: Feed) -> tuple[Tree, Tree]:
        upload, inner = self.method.contribute(task, own(w, c), c["method"], feed)
        kept = {key: upload.get(key, value) for key, value in c["buffers"].items()}
        return upload, {"method": inner, "buffers": kept, "seen": torch.ones_like(c["seen"])}

    def personalise(self, task: Task, w: Tree, c: Tree, feed: Feed) -> Tree:
        return {**c, "method": self.method.personalise(task, own(w, c), c["method"], feed)}

    def merge(self, w: Tree, mean: Tree) -> Tree:
        return self.method.merge(w, mean)

    def adapt(self, task: Task, w: Tree, c: Tree, feed: Feed) -> Tree:
        return {**c, "method": self.method.adapt(task, own(w, c), c["method"], feed)}

    def generic(self, w: Tree) -> State | None:
        return self.method.generic(w)

    def received(self, w: Tree, c: Tree) -> State | None:
        return self.method.generic(own(w, c))

    def deploy(self, w: Tree, c: Tree) -> State | None:
        return self.method.deploy(own(w, c), c["method"])


def own(w: Tree, c: Tree) -> Tree:
    """``w`` with this client's buffers, once it has trained."""
    kept = {key: torch.where(c["seen"], value, w[key]) for key, value in c["buffers"].items() if key in w}
    return {**w, **kept}


def buffers(task: Task, p: State) -> State:
    """The part of a model's state that SGD does not move."""
    return {key: value for key, value in p.items() if key not in task.parameters}
