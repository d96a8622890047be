"""Arithmetic on named tensors.

A tree is a tensor, or a dict or tuple of trees. A model state is a flat dict from parameter or buffer name to tensor.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

Tree = Any  # Tensor | dict[str, Tree] | tuple[Tree, ...]: mypy cannot express the recursion without casts everywhere
State = dict[str, Tensor]


def each(function: Callable[..., Tensor], tree: Tree, *others: Tree) -> Tree:
    """``function`` applied leaf by leaf to trees of one structure. Raises ValueError where structures differ."""
    if isinstance(tree, Tensor):
        return function(tree, *others)
    if isinstance(tree, tuple):
        return tuple(each(function, *items) for items in zip(tree, *others, strict=True))
    if any(other.keys() != tree.keys() for other in others):
        raise ValueError(f"trees differ: {sorted(tree)} and {[sorted(other) for other in others]}")
    return {name: each(function, tree[name], *(other[name] for other in others)) for name in tree}


def axpy(a: Tensor | float, x: Tree, y: Tree) -> Tree:
    """``a * x + y``."""
    return each(lambda left, right: a * left + right, x, y)


def select(flag: Tensor, yes: Tree, no: Tree) -> Tree:
    """``yes`` where the scalar ``flag: []`` is true, else ``no``."""
    return each(lambda left, right: torch.where(flag, left, right), yes, no)


def sq_dist(p: Tree, q: Tree) -> Tensor:
    """Squared Euclidean distance, a scalar: the sum over all leaves."""
    pieces = flatten(each(lambda left, right: (left - right).square().sum(), p, q)).values()
    return cast(Tensor, sum(pieces))


def clone(tree: Tree) -> Tree:
    """A copy that shares no memory with ``tree``."""
    return each(lambda leaf: leaf.detach().clone(), tree)


def zeros(tree: Tree) -> Tree:
    return each(torch.zeros_like, tree)


def repeat(tree: Tree, count: int) -> Tree:
    """``count`` copies stacked on a new leading axis: ``[...] -> [count, ...]``."""
    return each(lambda leaf: leaf.detach().expand(count, *leaf.shape).clone(), tree)


def rows(tree: Tree, index: Tensor) -> Tree:
    """The rows ``index: [K]`` of every leaf ``[C, ...]``, copied to where ``index`` is."""
    return each(lambda leaf: leaf[index.to(leaf.device)].to(index.device, non_blocking=True), tree)


def put_rows(tree: Tree, index: Tensor, values: Tree) -> None:
    """Writes ``values: [K, ...]`` into the rows ``index: [K]`` of every leaf ``[C, ...]``, in place."""
    each(lambda leaf, value: leaf.index_copy_(0, index.to(leaf.device), value.to(leaf)), tree, values)


def stack(trees: list[Tree]) -> Tree:
    """Trees of one structure stacked on a new leading axis."""
    return each(lambda *items: torch.stack(items), *trees)


def concat(trees: list[Tree]) -> Tree:
    """Trees of one structure joined along their leading axis."""
    return each(lambda *items: torch.cat(items), *trees)


def mean(tree: Tree, weight: Tensor) -> Tree:
    """Mean over the leading axis with ``weight: [K]``, which sums to one."""
    return each(lambda leaf: torch.tensordot(weight.to(leaf.dtype), leaf, dims=1), tree)


def numbers(tree: Tree) -> int:
    """How many numbers a tree holds."""
    return sum(leaf.numel() for leaf in flatten(tree).values())


def flatten(tree: Tree, prefix: str = "") -> dict[str, Tensor]:
    """Leaves by path; the parts of a path are joined with ``/``, tuple positions are numbers."""
    if isinstance(tree, Tensor):
        return {prefix: tree}
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    return {
        path: leaf
        for name, item in items
        for path, leaf in flatten(item, f"{prefix}/{name}" if prefix else str(name)).items()
    }


def like(tree: Tree, leaves: Mapping[str, Tensor], prefix: str = "") -> Tree:
    """The inverse of ``flatten`` for the structure of ``tree``. Raises KeyError for a missing path."""
    if isinstance(tree, Tensor):
        return leaves[prefix]
    if isinstance(tree, tuple):
        return tuple(like(item, leaves, f"{prefix}/{n}" if prefix else str(n)) for n, item in enumerate(tree))
    return {name: like(item, leaves, f"{prefix}/{name}" if prefix else name) for name, item in tree.items()}
