"""Spectral co-distillation from its definition: whole spectra, exact radii, autograd through the DFT.

GM: F_k(w) + lam_g ||w^0||^2 D(s_tau(v_k) || s_tau(w))    D(p || q) = sum p log(p / q) - p + q
PM: F_k(v) + lam_p ||w^0||^2 D(s(v) || s(w received))
"""

import copy
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor, nn

from .common import Problem, Result, average, copies, load, state, train


def run(problem: Problem, lam_g: float, lam_p: float, tau: float, personal_epochs: int) -> Result:
    server = copy.deepcopy(problem.module)
    personal = copies(problem.module, len(problem.x))
    unit = sum(float((weight.detach() ** 2).sum()) for weight in _weights(problem.module))
    low = torch.cat([_low(len(weight), weight[0].numel(), tau).flatten() for weight in _weights(problem.module)])
    for round, cohort in enumerate(problem.cohorts):
        uploads = []
        for client in cohort:
            local, v = copy.deepcopy(server), personal[client]
            generic = partial(_generic, lam=lam_g * unit, pm=_spectrum(v).detach(), kept=low)
            batches = problem.batches(round, client, "contribute", problem.epochs)
            train(problem, round, client, local, batches, generic)
            uploads.append(state(local))
            own = partial(_personal, lam=lam_p * unit, gm=_spectrum(server).detach())
            train(problem, round, client, v, problem.batches(round, client, "personalise", personal_epochs), own)
        load(server, average(uploads, [problem.weight[client] for client in cohort]))
    models = [state(module) for module in personal]
    return Result(state(server), [{f"v/{name}": leaf for name, leaf in model.items()} for model in models], models)


def _generic(w: nn.Module, lam: float, pm: Tensor, kept: Tensor) -> Tensor:
    q = _spectrum(w)
    return lam * (kept * (pm * (pm / q).log() - pm + q)).sum()


def _personal(v: nn.Module, lam: float, gm: Tensor) -> Tensor:
    p = _spectrum(v)
    return lam * (p * (p / gm).log()).sum()


def _weights(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.ndim >= 2]


def _spectrum(module: nn.Module) -> Tensor:
    """[bins of the full planes of all layers], sums to one."""
    layers = []
    for weight in _weights(module):
        power = torch.fft.fft2(weight.flatten(1)).abs() ** 2
        layers.append((power + 1e-12 * power.detach().mean()).sqrt().flatten())
    amplitude = torch.cat(layers)
    return amplitude / amplitude.sum()


def _low(rows: int, columns: int, tau: float) -> Tensor:
    """[rows, columns] 1 for the bins of lowest radial frequency, conjugate pairs together, up to tau of all bins."""

    def radius(bin: tuple[int, int]) -> Fraction:
        u, v = bin
        return Fraction(min(u, rows - u), rows) ** 2 + Fraction(v, columns) ** 2

    kept = torch.zeros(rows, columns, dtype=torch.float64)
    half = [(u, v) for u in range(rows) for v in range(columns // 2 + 1)]
    used = 0
    for u, v in sorted(half, key=radius):
        single = v == 0 or 2 * v == columns  # its conjugate is another bin of the half plane, or itself
        used += 1 if single else 2
        if used > tau * rows * columns + 1e-6:
            break
        kept[u, v] = 1
        if not single:
            kept[-u % rows, columns - v] = 1
    return kept
