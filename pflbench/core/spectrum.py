"""Spectra of weights, and what compares two of them: the mathematics under spectral co-distillation.

``baselines/spectral.py`` says which choices (C1 to C13) are made here and why.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Divergence = Literal["kl", "kl_reverse", "symmetric", "amplitude_l2", "complex_l2"]
Keep = Literal["low", "high", "random", "prefix"]
Normalise = Literal["global", "per_layer", "none"]
Layout = Literal["vector", "layer", "matrix"]
Trains = Literal["pm", "gm"]
Weights = Sequence[Tensor]  # parameters of one model, in the order of its state
Shapes = tuple[tuple[int, ...], ...]  # of those parameters
Blocks = tuple[tuple[int, int], ...]  # (rows, columns) each
SMOOTHING = 1e-6  # of a block's rms amplitude: for measuring; what trains chooses its own


@dataclass(frozen=True)
class Selection:
    """Which bins are compared. tau: share of the bins that is kept.

    layout: what a DFT is of, a block. ``vector``: one block, all parameters end to end. ``layer``: one per parameter,
    flattened. ``matrix``: one per parameter, as a matrix (out, fan-in), two-dimensional. keep: ``low`` or ``high``
    (radial) frequencies of every block, ``random`` bins of every block, or ``prefix``, the first tau of all blocks'
    bins laid end to end. permute: shuffle each block's entries before the DFT.
    """

    shapes: Shapes
    tau: float = 1.0
    keep: Keep = "low"
    permute: bool = False
    layout: Layout = "matrix"

    @property
    def blocks(self) -> Blocks:
        """What is transformed: a matrix each, of one row where the DFT has one dimension."""
        entries = [prod(shape) for shape in self.shapes]
        if self.layout == "vector":
            return ((1, sum(entries)),)
        rows = [shape[0] if self.layout == "matrix" and shape else 1 for shape in self.shapes]
        return tuple((r, n // r) for r, n in zip(rows, entries, strict=True))


class Bins(NamedTuple):
    """A selection as tensors; bins of all blocks laid end to end."""

    times: Tensor  # [bins], 2 where a bin stands for its conjugate partner too, else 1
    kept: Tensor  # [bins], 0 or 1
    sizes: list[int]  # bins per block
    shuffles: list[tuple[Tensor, Tensor]]  # permutation [rows * columns] and its inverse per block, or nothing
    blocks: Blocks
    groups: list[list[int]]  # blocks of equal shape, which are transformed together


@cache
def bins(selection: Selection, device: torch.device, dtype: torch.dtype) -> Bins:
    """The tensors of ``selection`` on ``device``, made once per process: a training step copies nothing to the device."""
    blocks = selection.blocks
    times = [_times(block) for block in blocks]
    entries = [rows * columns for rows, columns in blocks]
    budgets = [selection.tau * n for n in entries]
    if selection.keep == "prefix":
        budgets = [selection.tau * sum(entries) - start for start in accumulate(entries[:-1], initial=0)]
    kept = [torch.zeros_like(block) for block in times]
    for number, budget in enumerate(budgets):
        order = _order(blocks[number], selection.keep, number)
        kept[number][order[times[number][order].cumsum(0) <= budget + 1e-6]] = 1.0
    shuffles = [_hashed(n, number) for number, n in enumerate(entries)] if selection.permute else []
    return Bins(
        torch.cat(times).to(device, dtype),
        torch.cat(kept).to(device, dtype),
        [block.numel() for block in times],
        [(shuffle.to(device), shuffle.argsort().to(device)) for shuffle in shuffles],
        blocks,
        [[number for number, other in enumerate(blocks) if other == block] for block in dict.fromkeys(blocks)],
    )


def spectrum(weights: Weights, table: Bins, normalise: Normalise = "global", smoothing: float = SMOOTHING) -> Tensor:
    """``s: [bins]``, every amplitude by their total: ``(table.times * s).sum()`` is one. Not truncated."""
    amplitude = _amplitude(_transform(weights, table, "backward"), table, smoothing)
    return amplitude / _total(table.times * amplitude, table, normalise)


def calibrated(first: Weights, selection: Selection, normalise: Normalise, smoothing: float) -> Tensor:
    """The unit of lambda in which D pulls about as hard as half the squared distance of the weights does.

    The squared norm of the first weights, ``[]``; without normalisation D is larger by the amplitudes' total.
    """
    squared = torch.stack([weight.square().sum() for weight in first]).sum()
    if normalise != "none":
        return squared
    table = bins(selection, first[0].device, first[0].dtype)
    return squared / (table.times * spectrum(first, table, normalise, smoothing)).sum()


def distance(
    reference: Weights,
    selection: Selection,
    divergence: Divergence,
    trains: Trains,
    normalise: Normalise = "global",
    smoothing: float = SMOOTHING,
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
    by: Normalise = "none" if squared else normalise

    def scaled(coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        amplitude = _amplitude(coefficients, table, smoothing)
        total = _total(table.times * amplitude, table, by)
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
            if by != "none":  # s shrinks in every bin as the total grows
                slope = slope - _total(table.times * slope * s, table, by)
            slope = slope / (total * amplitude)
            # the smoothing grows with the block's mean power, to which every bin adds
            pull = (slope + smoothing**2 * _mean(table.times * slope, table)) * coefficients
        gradient = _inverse(pull, table, adjoint, [weight.numel() for weight in weights])
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
    """DFT of every block, half planes laid end to end: complex ``[bins]``."""
    flat = [weight.flatten() for weight in weights]
    blocks = flat if len(flat) == len(table.blocks) else [torch.cat(flat)]
    if table.shuffles:
        blocks = [block[to] for block, (to, _) in zip(blocks, table.shuffles, strict=True)]
    halves = [blocks[0]] * len(blocks)
    for group in table.groups:
        stack = torch.stack([blocks[number] for number in group]).view(len(group), *table.blocks[group[0]])
        whole = torch.fft.rfft(stack, norm=norm) if stack.shape[1] == 1 else torch.fft.rfft2(stack, norm=norm)
        for number, half in zip(group, whole.flatten(1).unbind(), strict=True):
            halves[number] = half
    return torch.cat(halves)


def _inverse(pull: Tensor, table: Bins, norm: str, entries: Sequence[int]) -> list[Tensor]:
    """The adjoint of ``_transform``, for coefficients ``pull: [bins]`` that stand for their conjugate partners too."""
    halves = torch.split(pull, table.sizes)
    blocks = list(halves)
    for group in table.groups:
        rows, columns = table.blocks[group[0]]
        stack = torch.stack([halves[number] for number in group]).view(len(group), rows, -1)
        if rows > 1:
            stack = torch.fft.ifft(stack, dim=1, norm=norm).contiguous()  # on a CPU, half irfft2's time
        whole = torch.fft.irfft(stack, columns, norm=norm).flatten(1)
        for number, block in zip(group, whole.unbind(), strict=True):
            blocks[number] = block
    if table.shuffles:
        blocks = [block[back] for block, (_, back) in zip(blocks, table.shuffles, strict=True)]
    return blocks if len(blocks) == len(entries) else list(torch.split(blocks[0], list(entries)))


def _amplitude(coefficients: Tensor, table: Bins, smoothing: float) -> Tensor:
    """``[bins]``, rounded off at zero, where |F| has a kink and its logarithm no value.

    By a share of the block's rms amplitude over its full plane, and by 1e-30: not even a block of zeros has a zero.
    """
    power = coefficients.real.square() + coefficients.imag.square()
    return (power + smoothing**2 * _mean(table.times * power, table) + 1e-30).sqrt()


def _mean(x: Tensor, table: Bins) -> Tensor:
    """Of every bin's block, the sum of ``x`` by the block's number of entries: ``[bins]``, or ``[]`` for one block."""
    parts = zip(torch.split(x, table.sizes), table.blocks, strict=True)
    means = [part.sum() / (rows * columns) for part, (rows, columns) in parts]
    return means[0] if len(means) == 1 else _spread(means, table)


def _total(x: Tensor, table: Bins, normalise: Normalise) -> Tensor | float:
    """What divides the amplitudes: the total of ``x`` over all bins, ``[]``, or nothing, one.

    Per layer: that of the bin's block times the number of blocks, ``[bins]``.
    """
    if normalise == "none":
        return 1.0
    if normalise == "global" or len(table.blocks) == 1:
        return x.sum()
    return _spread([part.sum() for part in torch.split(x, table.sizes)], table) * len(table.blocks)


def _spread(each: Sequence[Tensor], table: Bins) -> Tensor:
    """One number per block as ``[bins]``."""
    return torch.cat([number.expand(size) for number, size in zip(each, table.sizes, strict=True)])


def _times(shape: tuple[int, int]) -> Tensor:
    """How many entries of the full plane each bin of the half plane stands for."""
    column = torch.arange(shape[1] // 2 + 1)
    return torch.where((column == 0) | (2 * column == shape[1]), 1.0, 2.0).double().repeat(shape[0])


def _order(shape: tuple[int, int], keep: Keep, number: int) -> Tensor:
    """The bins of one block, those to keep first."""
    u, v = torch.arange(shape[0])[:, None], torch.arange(shape[1] // 2 + 1)
    if keep == "random":
        return _hashed(u.numel() * v.numel(), number)
    if keep == "prefix":
        return torch.arange(u.numel() * v.numel())
    radius = (torch.minimum(u, shape[0] - u) * shape[1]).square() + (v * shape[0]).square()  # integers: ties are exact
    low = radius.flatten().argsort(stable=True)
    return low if keep == "low" else low.flip(0)


def _hashed(count: int, number: int) -> Tensor:
    """A fixed permutation of ``count`` numbers: their order by a hash (splitmix64), the same on every machine."""
    x = (torch.arange(count) + (number << 32)) * -7046029254386353131
    x = (x ^ (x >> 30)) * -4658895280553007687
    x = (x ^ (x >> 27)) * -7723592293110705685
    return (x ^ (x >> 31)).argsort(stable=True)
