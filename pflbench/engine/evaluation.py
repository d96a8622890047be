"""Evaluation: raw counts for every client with its stored state, averaged later.

All clients are evaluated, sampled in this round or not; personal models before any fine-tuning that a method does not
itself declare.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from pflbench.core import tree
from pflbench.core.local import alone
from pflbench.core.method import Method
from pflbench.core.tree import State, Tree
from pflbench.engine.engine import Federation, World, groups_of, parallel, stage
from pflbench.engine.task import Pixels

AT_ONCE = 500  # images per forward pass of one model


class Scores(NamedTuple):
    """Counts of correct predictions; None where a method has no such model.

    official: GM on the official test set. generic, personal: [C] on the local tests. *_validation: [C].
    """

    official: int | None
    generic: list[int] | None
    personal: list[int] | None
    generic_validation: list[int] | None
    personal_validation: list[int] | None


Pair = tuple[list[int] | None, list[int] | None]
NOTHING: Pair = (None, None)


def evaluate(world: World, federation: Federation, round: int) -> Scores:
    """Counts after ``round``, on the official test set, on every local test and on every validation part."""
    w, bank = federation
    generic = world.method.generic(w)
    official, shared, personal = None, NOTHING, NOTHING
    if generic is not None:
        hits = _hits(world, generic, world.official, np.arange(len(world.official.y)))
        official, shared = int(hits.sum()), _generic(world, generic, hits, w, bank)
    first = tree.each(
        lambda leaf: leaf[0], tree.rows(bank, torch.zeros(1, dtype=torch.long, device=world.pixels.device))
    )
    personal = NOTHING if world.method.deploy(w, first) is None else _personal(world, w, bank, round)
    return Scores(official, shared[0], personal[0], shared[1], personal[1])


def _generic(world: World, generic: State, hits: np.ndarray, w: Tree, bank: Tree) -> Pair:
    """The generic model at every client; where statistics stay local, each client's version of it."""
    if type(world.method).received is not Method.received:
        return _everyone(world, lambda clients: _models(world.method.received, w, tree.rows(bank, clients), clients))
    own = [int(hits[part].sum()) for part in world.test]
    checks = [int(_hits(world, generic, world.pixels, part).sum()) for part in world.validation]
    return own, checks or None


def _personal(world: World, w: Tree, bank: Tree, round: int) -> Pair:
    """Every client's own model, fine-tuned first on a copy where the method says so."""
    epochs = world.method.work(world.task).adapt

    def models(clients: Tensor) -> State:
        rows = tree.rows(bank, clients)
        if epochs:
            rows = stage(world, "adapt", world.method.adapt, w, rows, clients.cpu().numpy(), round, epochs)
        return _models(world.method.deploy, w, rows, clients)

    return _everyone(world, models)


def _models(function: Callable[[Tree, Tree], State | None], w: Tree, rows: Tree, clients: Tensor) -> State:
    """One model per client, leaves [K, ...]; ``clients`` makes the call batched even where ``rows`` holds nothing."""
    return cast(State, torch.func.vmap(lambda c, _: function(w, c))(rows, clients))


def _everyone(world: World, models: Callable[[Tensor], State]) -> Pair:
    """Correct predictions of ``models(clients)``, made block by block to bound memory, on local tests and validation."""
    tests, checks = [], []
    for block in np.array_split(np.arange(world.clients), -(-world.clients // world.block)):
        made = models(torch.as_tensor(block, device=world.pixels.device))
        tests += _count(world, made, world.official, [world.test[k] for k in block])
        if len(world.validation):
            checks += _count(world, made, world.pixels, [world.validation[k] for k in block])
    return tests, checks or None


def _count(world: World, models: State, pixels: Pixels, parts: Sequence[np.ndarray]) -> list[int]:
    """[K]: correct predictions of model k (leaves [K, ...]) on the samples ``parts[k]``."""
    sizes = np.array([len(part) for part in parts])
    groups = groups_of(world, sizes)
    device = pixels.device

    def group(positions: np.ndarray) -> np.ndarray:
        if world.engine == "loop":
            own = {name: leaf[positions[0]] for name, leaf in models.items()}
            return np.array([_right(world, own, pixels, parts[positions[0]]).sum()])
        index = np.full((len(positions), int(sizes[positions].max())), -1, dtype=np.int64)
        for row, k in enumerate(positions):
            index[row, : sizes[k]] = parts[k]
        near, where = _bring(pixels, np.maximum(index, 0))
        mask = torch.as_tensor(index >= 0, device=device)
        own = tree.rows(models, torch.as_tensor(positions, device=device))
        with torch.no_grad():
            guess = torch.func.vmap(lambda p, i: world.network.predict(p, near.images(i)))(own, where)
        hits: np.ndarray = ((guess == near.y[where]) & mask).sum(1).cpu().numpy()
        return hits

    counts = np.concatenate(parallel(world.threads, group, groups))
    return [int(n) for n in counts[np.argsort(np.concatenate(groups))]]


def _hits(world: World, p: State, pixels: Pixels, index: np.ndarray) -> np.ndarray:
    """[n] bool: which of the samples ``index`` of ``pixels`` the one model ``p`` gets right."""
    pieces = np.array_split(index, max(1, -(-len(index) // AT_ONCE)))
    return np.concatenate(parallel(world.threads, lambda piece: _right(world, p, pixels, piece), pieces))


def _right(world: World, p: State, pixels: Pixels, index: np.ndarray) -> np.ndarray:
    near, where = _bring(pixels, index)
    with torch.no_grad(), alone():
        right = world.network.predict(p, near.images(where)) == near.y[where]
    hits: np.ndarray = right.cpu().numpy()
    return hits


def _bring(pixels: Pixels, index: np.ndarray) -> tuple[Pixels, Tensor]:
    """Pixels on the device that hold those of ``index``, and ``index`` into them."""
    near, where = pixels.near(torch.as_tensor(index))
    return near.landed(), where.to(pixels.device)
