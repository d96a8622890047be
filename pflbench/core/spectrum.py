"""Spectra of weights, and what compares two of them: the mathematics under spectral co-distillation.

``baselines/spectral.py`` says which choices (C1 to C13) are made here and why.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Divergence = Literal["kl", "kl_reverse", "symmetric", "amplitude_l2", "complex_l2"]
Keep = Literal["low", "high", "random", "prefix"]
Normalise = Literal["global", "per_layer"]
Trains = Literal["pm", "gm"]
Weights = Sequence[Tensor]  # [out, ...] each
Shapes = tuple[tuple[int, int], ...]  # (out, fan-in) each


@dataclass(frozen=True)
class Selection:
    """Which bins of which layers are compared. tau: share of the bins that is kept.

    keep: ``low`` or ``high`` radial frequencies of every layer, ``random`` bins of every layer, or ``prefix``, the
    first tau of all layers' bins laid end to end. permute: shuffle each layer's entries before the DFT.
    """

    shapes: Shapes
    tau: float = 1.0
    keep: Keep = "low"
    permute: bool = False


class Bins(NamedTuple):
    """A selection as tensors; bins of all layers laid end to end."""

    times: Tensor  # [bins], 2 where a bin stands for its conjugate partner too, else 1
    kept: Tensor  # [bins], 0 or 1
    sizes: list[int]  # bins per layer
    shuffles: list[tuple[Tensor, Tensor]]  # permutation [out * fan-in] and its inverse per layer, or nothing


@cache
def bins(selection: Selection, device: torch.device, dtype: torch.dtype) -> Bins:
    """The tensors of ``selection`` on ``device``, made once per process: a training step copies nothing to the device."""
    times = [_times(shape) for shape in selection.shapes]
    entries = [rows * columns for rows, columns in selection.shapes]
    budgets = [selection.tau * n for n in entries]
    if selection.keep == "prefix":
        budgets = [selection.tau * sum(entries) - start for start in accumulate(entries[:-1], initial=0)]
    kept = [torch.zeros_like(layer) for layer in times]
    for layer, budget in enumerate(budgets):
        order = _order(selection.shapes[layer], selection.keep, layer)
        kept[layer][order[times[layer][order].cumsum(0) <= budget + 1e-6]] = 1.0
    shuffles = [_hashed(n, layer) for layer, n in enumerate(entries)] if selection.permute else []
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
    reference: Weights, selection: Selection, divergence: Divergence, trains: Trains, normalise: Normalise = "global"
) -> Callable[[Weights], Tensor]:
    """D as a function of the weights of the model that trains, the PM or the GM; ``reference`` is the other one's.

    ``kl``: D(PM || GM). ``kl_reverse``: D(GM || PM). ``symmetric``: their mean. The L2 kinds are not normalised and
    use the orthonormal DFT: half the squared distance of the amplitudes, or of the complex coefficients, which over all
    bins is half the squared distance of the weights. Call this before a fold: it transforms the reference.
    """
    table = bins(selection, reference[0].device, reference[0].dtype)
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
        gradient = _inverse(pull, selection.shapes, table, adjoint)
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
