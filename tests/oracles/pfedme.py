"""pFedMe, Dinh et al. 2020, Algorithm 1, with theta kept from batch to batch.

Weight decay belongs to f_k, hence to theta's gradient; there is no momentum. Running statistics are theta's.
"""

import copy

import torch
from torch import nn

from .common import Problem, Result, average, load, state


def run(problem: Problem, lam: float, inner_steps: int, eta_p: float, eta: float, beta: float) -> Result:
    server = copy.deepcopy(problem.module)
    stored = [state(problem.module) for _ in problem.x]
    for round, cohort in enumerate(problem.cohorts):
        uploads = []
        for client in cohort:
            theta, w_k = copy.deepcopy(server), copy.deepcopy(server)
            theta.train()
            for epoch in problem.batches(round, client, "contribute", problem.epochs):
                for batch in epoch:
                    x, y = problem.x[client][batch], problem.y[client][batch]
                    for _ in range(inner_steps):
                        objective = nn.functional.cross_entropy(theta(x), y)
                        for p, q in zip(theta.parameters(), w_k.parameters(), strict=True):
                            objective = objective + lam / 2 * ((p - q.detach()) ** 2).sum()
                            objective = objective + problem.weight_decay / 2 * (p**2).sum()
                        slopes = torch.autograd.grad(objective, list(theta.parameters()))
                        with torch.no_grad():
                            for p, slope in zip(theta.parameters(), slopes, strict=True):
                                p -= eta_p * problem.decay[round] * slope
                    with torch.no_grad():
                        for p, q in zip(theta.parameters(), w_k.parameters(), strict=True):
                            q -= eta * problem.decay[round] * lam * (q - p)
            stored[client] = state(theta)
            uploads.append({**stored[client], **{name: q.detach().clone() for name, q in w_k.named_parameters()}})
        mean = average(uploads, [problem.weight[client] for client in cohort])
        load(server, {name: (1 - beta) * old + beta * mean[name] for name, old in state(server).items()})
    return Result(state(server), stored, stored)
