"""Spectral co-distillation from its definition: whole spectra, exact radii, autograd through the DFT.

GM: F_k(w) + lam_g unit D(s_tau(v_k) || s_tau(w))    D(p || q) = sum p log(p / q) - p + q
PM: F_k(v) + lam_p unit D(s(v) || s(w))              w: received, or own, just trained
"""

import copy
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor, nn

from .common import Problem, Result, average, copies, load, state, train


@dataclass(frozen=True)
class Reading:
    """One way to read the paper: what is transformed, what divides the amplitudes, how they are rounded off at zero."""

    layout: str
    content: str
    normalise: str
    smoothing: float


def run(
    problem: Problem, lam_g: float, lam_p: float, tau: float, personal_epochs: int, reference: str, reading: Reading
) -> Result:
    server = copy.deepcopy(problem.module)
    personal = copies(problem.module, len(problem.x))
    spectrum, unit, low = partial(_spectrum, reading=reading), _unit(server, reading), _low(server, reading, tau)
    for round, cohort in enumerate(problem.cohorts):
        uploads = []
        for client in cohort:
            local, v = copy.deepcopy(server), personal[client]
            generic = partial(_generic, lam=lam_g * unit, pm=spectrum(v).detach(), kept=low, reading=reading)
            batches = problem.batches(round, client, "contribute", problem.epochs)
            train(problem, round, client, local, batches, generic)
            uploads.append(state(local))
            still = {"received": server, "own": local}[reference]
            own = partial(_personal, lam=lam_p * unit, gm=spectrum(still).detach(), reading=reading)
            train(problem, round, client, v, problem.batches(round, client, "personalise", personal_epochs), own)
        load(server, average(uploads, [problem.weight[client] for client in cohort]))
    models = [state(module) for module in personal]
    return Result(state(server), [{f"v/{name}": leaf for name, leaf in model.items()} for model in models], models)


def _generic(w: nn.Module, lam: float, pm: Tensor, kept: Tensor, reading: Reading) -> Tensor:
    q = _spectrum(w, reading)
    return lam * (kept * (pm * (pm / q).log() - pm + q)).sum()


def _personal(v: nn.Module, lam: float, gm: Tensor, reading: Reading) -> Tensor:
    p = _spectrum(v, reading)
    return lam * (p * (p / gm).log() - p + gm).sum()


def _unit(first: nn.Module, reading: Reading) -> float:
    """The squared norm of the first weights; without normalisation by their amplitudes' total."""
    squared = sum(float((leaf.detach() ** 2).sum()) for leaf in _content(first, reading))
    return squared / float(_spectrum(first, reading).detach().sum()) if reading.normalise == "none" else squared


def _content(module: nn.Module, reading: Reading) -> list[Tensor]:
    return [p for p in module.parameters() if p.ndim >= 2 or reading.content == "all"]


def _arrays(module: nn.Module, reading: Reading) -> list[Tensor]:
    """What is transformed, one array each: vectors, or matrices (out, fan-in)."""
    leaves = _content(module, reading)
    if reading.layout == "vector":
        return [torch.cat([leaf.reshape(-1) for leaf in leaves])]
    if reading.layout == "layer":
        return [leaf.reshape(-1) for leaf in leaves]
    return [leaf.reshape(len(leaf), -1) for leaf in leaves]


def _spectrum(module: nn.Module, reading: Reading) -> Tensor:
    """[bins of all arrays' whole spectra]; sums to one, if it is normalised."""
    amplitudes = []
    for array in _arrays(module, reading):
        power = torch.fft.fftn(array).abs() ** 2 + 1e-30
        amplitudes.append((power + reading.smoothing**2 * power.mean()).sqrt().flatten())
    if reading.normalise == "none":
        return torch.cat(amplitudes)
    if reading.normalise == "per_layer":
        return torch.cat([a / a.sum() / len(amplitudes) for a in amplitudes])
    return torch.cat(amplitudes) / sum(a.sum() for a in amplitudes)


def _low(module: nn.Module, reading: Reading, tau: float) -> Tensor:
    """[bins of all arrays' whole spectra] 1 for the lowest frequencies of each."""
    shapes = [(1, len(a)) if a.ndim == 1 else tuple(a.shape) for a in _arrays(module, reading)]
    return torch.cat([_lowest(rows, columns, tau).flatten() for rows, columns in shapes])


def _lowest(rows: int, columns: int, tau: float) -> Tensor:
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
