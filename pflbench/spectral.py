"""Spectral co-distillation: a generic model (GM) and personal models (PM) that agree in their Fourier spectra.

Spectral Co-Distillation for Personalized Federated Learning, NeurIPS 2023, arXiv 2401.17124. w: GM. c: {"v": PM}.

    GM phase (contribute):   F_k(w) + lambda_g D(sg s_tau(v) || s_tau(w)), from the received w
    PM phase (personalise):  F_k(v) + lambda_p D(s(v) || sg s(w_ref)), from the client's own v

sg stops the gradient. s(w) is one probability vector over the bins of all layers, s_tau its low frequencies, not
renormalised, and D(p || q) = sum_i [p_i log(p_i / q_i) - p_i + q_i] in nats. The choices behind that:

C1 weights with two dimensions or more; no biases, no norm layers. C2 one 2-D DFT per layer, of the weight as a matrix
(out, fan-in). C3 half plane, every bin counted with its conjugate partner. C4 low means radial and within a layer:
every layer keeps tau of its bins. C5 amplitudes; the phase is ignored. C6 one L1 normalisation for all layers
(``per_layer``: one each, mass 1 / layers). C7 generalised KL, summed. C8 D(PM || GM) in both phases. C9 amplitude
sqrt(|F|^2 + eps^2), eps = 1e-6 rms of the layer's bins, held constant; sums in the precision of the weights. C10
reference spectrum once per phase. C11 every batch. C12 calibrated lambda: ``lam`` times the squared norm of the first
weights, so 1 pulls about as hard as Ditto's 1 (a literal 0.3 is inert). C13 buffers: the experiment's policy.

Departures: the paper's body was not at hand; its meaning is taken from a summary and from the argument order in the
released code. That code's term has no gradient, compares the model with itself, truncates by layer (``prefix``) and
adds a pull of the PM to its start; none of it is kept. v starts at w^0, not at the first received w. C12 is ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Annotated, Literal, NamedTuple, cast

import torch
from torch import Tensor

from pflbench.local import Loss
from pflbench.method import Feed, Method, State, Task, Tree, Work, hyper, sgd

Divergence = Literal["kl", "kl_reverse", "symmetric", "amplitude_l2", "complex_l2"]
Keep = Literal["low", "high", "random", "prefix"]
Normalise = Literal["global", "per_layer"]
Trains = Literal["pm", "gm"]
Weights = Sequence[Tensor]  # [out, ...] each
Shapes = tuple[tuple[int, int], ...]  # (out, fan-in) each


@dataclass(frozen=True)
class Plan:
    """Which bins of which layers are compared. tau: share of the bins that is kept.

    keep: ``low`` or ``high`` radial frequencies of every layer, ``random`` bins of every layer, or ``prefix``, the
    first tau of all layers' bins laid end to end. permute: shuffle each layer's entries before the DFT.
    """

    shapes: Shapes
    tau: float = 1.0
    keep: Keep = "low"
    permute: bool = False


class Bins(NamedTuple):
    """A plan as tensors; bins of all layers laid end to end."""

    times: Tensor  # [bins], 2 where a bin stands for its conjugate partner too, else 1
    kept: Tensor  # [bins], 0 or 1
    sizes: list[int]  # bins per layer
    shuffles: list[tuple[Tensor, Tensor]]  # permutation [out * fan-in] and its inverse per layer, or nothing


@cache
def bins(plan: Plan, device: torch.device, dtype: torch.dtype) -> Bins:
    """The tensors of ``plan`` on ``device``, made once per process: a training step copies nothing to the device."""
    times = [_times(shape) for shape in plan.shapes]
    entries = [rows * columns for rows, columns in plan.shapes]
    budgets = [plan.tau * n for n in entries]
    if plan.keep == "prefix":
        budgets = [plan.tau * sum(entries) - start for start in accumulate(entries[:-1], initial=0)]
    kept = [torch.zeros_like(layer) for layer in times]
    for layer, budget in enumerate(budgets):
        order = _order(plan.shapes[layer], plan.keep, layer)
        kept[layer][order[times[layer][order].cumsum(0) <= budget + 1e-6]] = 1.0
    shuffles = [_hashed(n, layer) for layer, n in enumerate(entries)] if plan.permute else []
    return Bins(
        torch.cat(times).to(device, dtype),
        torch.cat(kept).to(device, dtype),
        [layer.numel() for layer in times],
        [(shuffle.to(device), shuffle.argsort().to(device)) for shuffle in shuffles],
    )


def spectrum(weights: Weights, table: Bins, normalise: Normalise = "global") -> Tensor:
    """``s: [bins]``, every amplitude by their total: ``(table.times * s).sum()`` is one. Not truncated."""
    amplitude = _amplitude(_transform(weights, table, "backward"), table)
    return amplitude / _total(table.times * amplitude, table, normalise)


def distance(
    reference: Weights, plan: Plan, divergence: Divergence, trains: Trains, normalise: Normalise = "global"
) -> Callable[[Weights], Tensor]:
    """D as a function of the weights of the model that trains, the PM or the GM; ``reference`` is the other one's.

    ``kl``: D(PM || GM). ``kl_reverse``: D(GM || PM). ``symmetric``: their mean. The L2 kinds are not normalised and
    use the orthonormal DFT: half the squared distance of the amplitudes, or of the complex coefficients, which over all
    bins is half the squared distance of the weights. Call this before a fold: it transforms the reference.
    """
    table = bins(plan, reference[0].device, reference[0].dtype)
    squared, phased = divergence.endswith("_l2"), divergence == "complex_l2"
    norm, adjoint = ("ortho", "ortho") if squared else ("backward", "forward")
    first = (divergence == "kl") == (trains == "pm")  # whether the model that trains is D's first argument

    def scaled(coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        amplitude = _amplitude(coefficients, table)
        total = 1.0 if squared else _total(table.times * amplitude, table, normalise)
        return amplitude / total, amplitude, total

    r = _transform([weight.detach() for weight in reference], table, norm)
    r = r if phased else scaled(r)[0]

    def value(weights: Weights) -> Tensor:
        # By hand, cheaper than differentiating the DFT: dD/dF = (dD/da) F / a, and its adjoint leads to the weights.
        coefficients = _transform([weight.detach() for weight in weights], table, norm)
        if phased:
            gap = coefficients - r
            each, pull = (gap * gap.conj()).real / 2, table.kept * gap
        else:
            s, amplitude, total = scaled(coefficients)
            each, slope = _compare(s, r, divergence, first)
            slope = table.kept * slope
            if not squared:  # s shrinks in every bin as the total grows
                slope = slope - _total(table.times * slope * s, table, normalise)
            pull = slope / (total * amplitude) * coefficients
        gradient = _inverse(pull, plan.shapes, table, adjoint)
        linear = torch.stack([(g.view_as(w) * w).sum() for g, w in zip(gradient, weights, strict=True)]).sum()
        return (table.times * table.kept * each).sum() + (linear - linear.detach())

    return value


def _compare(s: Tensor, r: Tensor, divergence: Divergence, first: bool) -> tuple[Tensor, Tensor]:
    """The divergence of every bin, and its derivative by ``s: [bins]``; ``first``: s is the first argument."""
    if divergence == "amplitude_l2":
        return (s - r).square() / 2, s - r
    log = (s / r).log()
    if divergence == "symmetric":
        return (s - r) * log / 2, (log + 1 - r / s) / 2
    return (s * log - s + r, log) if first else (s - r - r * log, 1 - r / s)


def _transform(weights: Weights, table: Bins, norm: str) -> Tensor:
    """2-D DFT of every weight as a matrix, half planes laid end to end: complex ``[bins]``."""
    matrices = [weight.flatten(1) for weight in weights]
    if table.shuffles:
        matrices = [m.flatten()[to].view(m.shape) for m, (to, _) in zip(matrices, table.shuffles, strict=True)]
    return torch.cat([torch.fft.rfft2(matrix, norm=norm).flatten() for matrix in matrices])


def _inverse(pull: Tensor, matrices: Shapes, table: Bins, norm: str) -> list[Tensor]:
    """The adjoint of ``_transform``, for coefficients ``pull: [bins]`` that stand for their conjugate partners too."""
    halves = [part.view(shape[0], -1) for part, shape in zip(torch.split(pull, table.sizes), matrices, strict=True)]
    rows = [torch.fft.ifft(half, dim=0, norm=norm).contiguous() for half in halves]  # on a CPU, half irfft2's time
    weights = [torch.fft.irfft(row, shape[1], norm=norm) for row, shape in zip(rows, matrices, strict=True)]
    if table.shuffles:
        weights = [weight.flatten()[back] for weight, (_, back) in zip(weights, table.shuffles, strict=True)]
    return weights


def _amplitude(coefficients: Tensor, table: Bins) -> Tensor:
    """``[bins]``, smoothed so that no logarithm meets zero (1e-30: not even in a layer of zeros)."""
    powers = torch.split(coefficients.real.square() + coefficients.imag.square(), table.sizes)
    return torch.cat([power + 1e-12 * power.mean() + 1e-30 for power in powers]).sqrt()


def _total(x: Tensor, table: Bins, normalise: Normalise) -> Tensor:
    """The total over all bins, ``[]``; per layer: the bin's layer's total times the number of layers, ``[bins]``."""
    if normalise == "global":
        return x.sum()
    layers = torch.split(x, table.sizes)
    return torch.cat([layer.sum().expand(layer.shape) for layer in layers]) * len(layers)


def _times(shape: tuple[int, int]) -> Tensor:
    """How many entries of the full plane each bin of the half plane stands for."""
    column = torch.arange(shape[1] // 2 + 1)
    return torch.where((column == 0) | (2 * column == shape[1]), 1.0, 2.0).double().repeat(shape[0])


def _order(shape: tuple[int, int], keep: Keep, layer: int) -> Tensor:
    """The bins of one layer, those to keep first."""
    u, v = torch.arange(shape[0])[:, None], torch.arange(shape[1] // 2 + 1)
    if keep == "random":
        return _hashed(u.numel() * v.numel(), layer)
    if keep == "prefix":
        return torch.arange(u.numel() * v.numel())
    radius = (torch.minimum(u, shape[0] - u) * shape[1]).square() + (v * shape[0]).square()  # integers: ties are exact
    low = radius.flatten().argsort(stable=True)
    return low if keep == "low" else low.flip(0)


def _hashed(count: int, layer: int) -> Tensor:
    """A fixed permutation of ``count`` numbers: their order by a hash (splitmix64), the same on every machine."""
    x = (torch.arange(count) + (layer << 32)) * -7046029254386353131
    x = (x ^ (x >> 30)) * -4658895280553007687
    x = (x ^ (x >> 27)) * -7723592293110705685
    return (x ^ (x >> 31)).argsort(stable=True)


@dataclass(frozen=True)
class SpectralCoDistillation(Method):
    lam_g: Annotated[
        float, hyper("pull of the GM to the PM's low frequencies", source="our sweep; code: 0.3", ge=0)
    ] = 0.03
    lam_p: Annotated[float, hyper("pull of the PM to the GM's spectrum", source="our sweep; code: 0.4", ge=0)] = 0.3
    scale: Annotated[
        Literal["calibrated", "literal"],
        hyper("unit of lam_g, lam_p: squared norm of the first weights (L2 divergences: 1), or 1", source="ours"),
    ] = "calibrated"
    tau: Annotated[float, hyper("share of the bins in the GM phase; PM: all", source="code", gt=0, le=1)] = 0.4
    personal_epochs: Annotated[
        int | None, hyper("passes over the local data for the PM; None: as many as for the GM", source="code", ge=1)
    ] = None
    divergence: Annotated[Divergence, hyper("what compares two spectra", source="paper and code")] = "kl"
    keep: Annotated[Keep, hyper("which share tau of the bins", source="paper; code: prefix")] = "low"
    normalise: Annotated[Normalise, hyper("total that divides the amplitudes; not for L2", source="code")] = "global"
    reference: Annotated[Literal["received", "own"], hyper("GM that the PM is drawn to", source="code")] = "received"
    permute: Annotated[bool, hyper("shuffle each weight's entries before the DFT: a control", source="ours")] = False

    def init(self, task: Task, p: State) -> tuple[Tree, Tree]:
        return p, {"v": p}

    def work(self, task: Task) -> Work:
        return Work(contribute=task.epochs, personalise=self.personal_epochs or task.epochs)

    def contribute(self, task: Task, w: Tree, c: Tree, feed: Feed) -> tuple[Tree, Tree]:
        upload = sgd(self._near(task, c["v"], "gm"), w, feed, task)
        return upload, {**c, "own": upload} if self.reference == "own" else c

    def personalise(self, task: Task, w: Tree, c: Tree, feed: Feed) -> Tree:
        w_ref = c["own"] if self.reference == "own" else w
        return {"v": sgd(self._near(task, w_ref, "pm"), c["v"], feed, task)}

    def generic(self, w: Tree) -> State | None:
        return cast(State, w)

    def deploy(self, w: Tree, c: Tree) -> State | None:
        return cast(State, c["v"])

    def _near(self, task: Task, reference: State, trains: Trains) -> Loss:
        lam, tau = (self.lam_g, self.tau) if trains == "gm" else (self.lam_p, 1.0)
        if lam == 0:
            return task.loss
        fixed = [reference[name] for name in task.weights]
        plan = Plan(tuple((w.shape[0], w.shape[1:].numel()) for w in fixed), tau, self.keep, self.permute)
        apart = distance(fixed, plan, self.divergence, trains, self.normalise)
        literal = self.scale == "literal" or self.divergence.endswith("_l2")
        unit = 1.0 if literal else sum(task.start[name].square().sum() for name in task.weights)
        return lambda p, batch: task.loss(p, batch) + lam * unit * apart([p[name] for name in task.weights])
