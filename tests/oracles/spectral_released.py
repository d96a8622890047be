"""The released spectral code as described, live objects and all, but an unseen client starts at the aggregate.

The spectral term is added as the code adds it: from copies of the numbers (no gradient), except ``differentiable``.
"""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from .common import Problem, Result, average, load, state, train


def run(problem: Problem, code: str, beta: float, lam_g: float, lam_l: float, ratio: float) -> Result:
    server = copy.deepcopy(problem.module)
    personal: list[nn.Module | None] = [
        None if code == "released" else copy.deepcopy(problem.module) for _ in problem.x
    ]
    seen: set[int] = set()
    constant = code != "differentiable"
    for round, cohort in enumerate(problem.cohorts):
        uploads = []
        for client in cohort:
            own = copy.deepcopy(personal[client] or server)
            passed = own if code == "released" else server  # one object, or the generic model
            compared = passed if code in ("released", "unaliased") else own
            local, v = copy.deepcopy(passed), copy.deepcopy(own)
            generic = partial(_generic, lam=lam_g, reference=compared, ratio=ratio, constant=constant)
            batches = problem.batches(round, client, "contribute", problem.epochs)
            train(problem, round, client, local, batches, generic, first_free=True)
            uploads.append(state(local))
            own = partial(_personal, lam=lam_l, beta=beta, reference=passed, constant=constant)
            batches = problem.batches(round, client, "personalise", problem.epochs)
            train(problem, round, client, v, batches, own, first_free=True)
            personal[client] = v
            seen.add(client)
        load(server, average(uploads, [problem.weight[client] for client in cohort]))
    deployed = [state(module or server) for module in personal]
    held = [state(module or problem.module) for module in personal]
    flags = [torch.tensor(float(client in seen), dtype=torch.float64) for client in range(len(problem.x))]
    clients = [
        {"seen": flag, **{f"v/{n}": p for n, p in model.items()}} for flag, model in zip(flags, held, strict=True)
    ]
    return Result(state(server), clients, deployed)


def _generic(w: nn.Module, lam: float, reference: nn.Module, ratio: float, constant: bool) -> Tensor:
    return lam * _kl(w, reference, ratio, constant)


def _personal(v: nn.Module, lam: float, beta: float, reference: nn.Module, constant: bool) -> Tensor:
    pairs = zip(v.parameters(), reference.parameters(), strict=True)
    norm = sum(torch.norm(p - q.detach()) ** 2 for p, q in pairs) ** 0.5
    return lam * _kl(reference, v, 1.0, constant) + beta * norm


def _kl(softened: nn.Module, target: nn.Module, ratio: float, constant: bool) -> Tensor:
    """nn.KLDivLoss of the first ``ratio`` of the bins, mean; log-softmax on one side only."""
    one, other = _spectrum(softened, constant), _spectrum(target, constant)
    count = int(len(one) * ratio)
    return nn.KLDivLoss(reduction="sum")(torch.log_softmax(one, 0)[:count], other[:count]) / count


def _spectrum(module: nn.Module, constant: bool) -> Tensor:
    weights = [p.data if constant else p for p in module.parameters() if p.ndim >= 2]
    amplitude = torch.cat([torch.fft.fft2(weight.flatten(1)).abs().flatten() for weight in weights])
    return amplitude / amplitude.sum()
