"""The engine: the only module that knows there is more than one client.

``start`` makes the state before round 0, ``play`` plays one round, ``evaluate`` counts correct predictions. A stage runs
either for one client after another (``loop``, the reference) or for many at once (``vmap``); the two are equal to
rounding, and each client's numbers depend on neither its neighbours nor the number of threads.

Memory: client states grow with the clients C (one row each), activations and gradients with the chunk, uploads with
the cohort M.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from pflbench import tree
from pflbench.local import Feed, plain
from pflbench.method import Method, State, Task, Tree
from pflbench.streams import stream
from pflbench.task import Network, Pixels

OVERHEAD = 8  # a step's fixed cost, in units of one client's share; measured with benchmarks/engine.py
EVALUATE = 500  # images per forward pass at an evaluation
Stage = Literal["contribute", "personalise", "adapt"]


class Federation(NamedTuple):
    """All that learning has changed: the server's state w and the clients' c, every leaf of c with a leading axis C."""

    w: Tree
    c: Tree


class Cost(NamedTuple):
    """What one round cost. cohort: [M]; contribute, personalise: batches per cohort member; up, down: numbers per client."""

    cohort: list[int]
    contribute: list[int]
    personalise: list[int]
    up: int
    down: int


class Scores(NamedTuple):
    """Counts of correct predictions; None where a method has no such model.

    official: GM on the official test set. generic, personal: [C] on the local tests. *_validation: [C].
    """

    official: int | None
    generic: list[int] | None
    personal: list[int] | None
    generic_validation: list[int] | None
    personal_validation: list[int] | None


@dataclass(frozen=True)
class World:
    """All that does not change during a run.

    train, validation: per client, indices into ``pixels``; test: per client, indices into ``official``. weight: [C], the
    weight of a client's upload before normalisation. decay(round): factor on the learning rate. chunk: most clients in
    one vmapped call. threads: how many clients (loop) or chunks (vmap) run at a time; changes no number.
    """

    method: Method
    task: Task
    network: Network
    pixels: Pixels
    official: Pixels
    train: Sequence[np.ndarray]
    test: Sequence[np.ndarray]
    validation: Sequence[np.ndarray]
    weight: np.ndarray
    cohort_size: int
    batch_size: int
    seed: int
    decay: Callable[[int], float]
    engine: Literal["loop", "vmap"]
    chunk: int
    threads: int = 1

    @property
    def clients(self) -> int:
        return len(self.train)


def start(world: World) -> Federation:
    """The state before round 0: every client holds the same first state, by value."""
    w, c = world.method.init(world.task, world.task.start)
    return Federation(tree.clone(w), tree.repeat(c, world.clients))


def cohort_of(world: World, round: int) -> np.ndarray:
    """The clients of a round, sorted: [M]. The same for every method."""
    chosen = stream(world.seed, "cohort", round).choice(world.clients, world.cohort_size, replace=False)
    return np.sort(chosen)


def play(world: World, federation: Federation, round: int) -> tuple[Federation, Cost]:
    """One round. The clients' states of ``federation`` are donated: their rows are overwritten in place."""
    w, bank = federation
    cohort = cohort_of(world, round)
    index = torch.as_tensor(cohort, device=world.pixels.x.device)
    work = world.method.work(world.task)
    run = partial(_stage, world, cohort=cohort, round=round)
    uploads, c = run("contribute", world.method.contribute, w, tree.rows(bank, index), epochs=work.contribute)
    weight = world.weight[cohort] / world.weight[cohort].sum()
    mean = tree.mean(uploads, torch.as_tensor(weight, device=index.device))
    c = run("personalise", world.method.personalise, w, c, epochs=work.personalise)
    tree.put_rows(bank, index, c)
    steps = [int(n) for n in _steps(world, cohort)]
    cost = Cost(
        cohort=cohort.tolist(),
        contribute=[work.contribute * n for n in steps],
        personalise=[work.personalise * n for n in steps],
        up=tree.numbers(uploads) // len(cohort),
        down=tree.numbers(w),
    )
    return Federation(tree.clone(world.method.merge(w, mean)), bank), cost


def evaluate(world: World, federation: Federation, round: int) -> Scores:
    """Counts for every client with its stored state, sampled in this round or not."""
    w, bank = federation
    generic = world.method.generic(w)
    official = own = own_validation = None
    if generic is not None:
        hits = _generic_hits(world, generic, world.official, np.arange(len(world.official.y)))
        official, own = int(hits.sum()), [int(hits[part].sum()) for part in world.test]
        if len(world.validation):
            own_validation = [int(_generic_hits(world, generic, world.pixels, part).sum()) for part in world.validation]
    personal = _personal(world, w, bank, round)
    counted = [None, None] if personal is None else [[int(n) for n in row] for row in personal]
    return Scores(official, own, counted[0], own_validation, counted[1] if len(world.validation) else None)


def finite(federation: Federation) -> bool:
    """Whether every number of the state is finite."""
    return all(bool(torch.isfinite(leaf).all()) for leaf in tree.flatten(tuple(federation)).values())


def chunks(steps: np.ndarray, most: int) -> list[np.ndarray]:
    """Groups clients of similar length, so that little is computed on padding.

    steps: [M] steps of each client. Returns positions, every one once. Dynamic programming over the clients sorted by
    length minimises sum over groups of (longest) x (OVERHEAD + size): a fixed rule, never a timing.
    """
    order = np.argsort(-steps, kind="stable")
    best = np.full(len(order) + 1, np.inf)
    best[0], cut = 0.0, np.zeros(len(order) + 1, dtype=int)
    for end in range(1, len(order) + 1):
        first = max(0, end - most)
        cost = best[first:end] + steps[order[first:end]] * (OVERHEAD + end - np.arange(first, end))
        cut[end] = first + int(np.argmin(cost))
        best[end] = cost[cut[end] - first]
    groups, end = [], len(order)
    while end > 0:
        groups.append(order[cut[end] : end])
        end = cut[end]
    return groups[::-1]


def _steps(world: World, clients: np.ndarray) -> np.ndarray:
    return np.array([-(-len(world.train[k]) // world.batch_size) for k in clients])


def _draw(world: World, client: int, round: int, stage: Stage, epochs: int) -> np.ndarray:
    """[E, S * B] positions into the client's data, -1 for padding: a fresh permutation per epoch."""
    mine = world.train[client]
    chance = stream(world.seed, "batches", round, client, stage)
    length = -(-len(mine) // world.batch_size) * world.batch_size
    table = np.full((epochs, length), -1, dtype=np.int64)
    for epoch in range(epochs):
        table[epoch, : len(mine)] = mine[chance.permutation(len(mine))]
    return table


def _feeds(world: World, clients: np.ndarray, round: int, stage: Stage, epochs: int) -> tuple[dict[str, Tensor], list[list[bool]]]:
    """Draws of several clients, padded to the longest: index, mask [K, E, S, B]; and [E][S], True where all are awake."""
    steps = _steps(world, clients)
    longest, size = int(steps.max()), world.batch_size
    index = np.full((len(clients), epochs, longest * size), -1, dtype=np.int64)
    for row, client in enumerate(clients):
        table = _draw(world, int(client), round, stage, epochs)
        index[row, :, : table.shape[1]] = table
    index = index.reshape(len(clients), epochs, longest, size)
    device = world.pixels.x.device
    draws = {"index": np.maximum(index, 0), "mask": index >= 0}
    whole = [[step < int(steps.min()) for step in range(longest)] for _ in range(epochs)]
    return {name: torch.as_tensor(draw, device=device) for name, draw in draws.items()}, whole


def _stage(
    world: World,
    stage: Stage,
    function: Callable[[Task, Tree, Tree, Feed], Tree],
    w: Tree,
    c: Tree,
    *,
    cohort: np.ndarray,
    round: int,
    epochs: int,
) -> Tree:
    """``function`` at every client of the cohort. c and the result: leaves [M, ...], in the order of the cohort."""
    device = world.pixels.x.device
    decay = torch.tensor(world.decay(round), dtype=world.network.dtype, device=device)

    def group(positions: np.ndarray) -> Tree:
        draws, whole = _feeds(world, cohort[positions], round, stage, epochs)
        mine = tree.rows(c, torch.as_tensor(positions, device=device))

        def one(c: Tree, draws: dict[str, Tensor]) -> Tree:
            return function(world.task, w, c, Feed(draws, world.pixels.batch, decay, whole, plain))

        if world.engine == "vmap":
            return torch.func.vmap(one)(mine, draws)
        alone = tree.each(lambda leaf: leaf[0], (mine, draws))
        return tree.each(lambda leaf: leaf[None], one(*alone))

    groups = _groups(world, _steps(world, cohort))
    results = _parallel(world.threads, group, groups)
    back = torch.as_tensor(np.argsort(np.concatenate(groups)), device=device)
    return tree.rows(tree.concat(results), back)


def _groups(world: World, lengths: np.ndarray) -> list[np.ndarray]:
    """Which clients are computed together: one by one (loop), or those of similar length (vmap)."""
    if world.engine == "loop":
        return [np.array([position]) for position in range(len(lengths))]
    return chunks(lengths, world.chunk)


Item = TypeVar("Item")
Result = TypeVar("Result")


def _parallel(threads: int, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """``function`` of every item, in order; several at a time, each on one core, so that no bit depends on ``threads``."""
    if threads == 1 or len(items) == 1:
        return [function(item) for item in items]
    return list(_pool(threads).map(function, items))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))


def _generic_hits(world: World, p: State, pixels: Pixels, index: np.ndarray) -> np.ndarray:
    """[n] bool: which of the samples ``index`` of ``pixels`` the one model ``p`` gets right."""
    pieces = np.array_split(index, -(-len(index) // EVALUATE))
    return np.concatenate(_parallel(world.threads, lambda piece: _hits(world, p, pixels, piece), pieces))


def _hits(world: World, p: State, pixels: Pixels, index: np.ndarray) -> np.ndarray:
    where = torch.as_tensor(index, device=pixels.x.device)
    with torch.no_grad():
        right = world.network.predict(p, pixels.images(where)) == pixels.y[where]
    hits: np.ndarray = right.cpu().numpy()
    return hits


def _personal(world: World, w: Tree, bank: Tree, round: int) -> np.ndarray | None:
    """[2, C]: correct predictions of every client's own model on its local test and on its validation part."""
    work = world.method.work(world.task)
    if world.method.deploy(w, tree.each(lambda leaf: leaf[0], bank)) is None:
        return None
    counts = np.zeros((2, world.clients), dtype=np.int64)
    for block in np.array_split(np.arange(world.clients), -(-world.clients // world.chunk)):
        here = torch.as_tensor(block, device=world.pixels.x.device)
        rows = tree.rows(bank, here)
        if work.adapt:
            rows = _stage(world, "adapt", world.method.adapt, w, rows, cohort=block, round=round, epochs=work.adapt)
        models = torch.func.vmap(lambda c, _: world.method.deploy(w, c))(rows, here)
        counts[0, block] = _count(world, models, world.official, [world.test[k] for k in block])
        if len(world.validation):
            counts[1, block] = _count(world, models, world.pixels, [world.validation[k] for k in block])
    return counts


def _count(world: World, models: State, pixels: Pixels, parts: Sequence[np.ndarray]) -> np.ndarray:
    """[K]: correct predictions of model k (leaves [K, ...]) on the samples ``parts[k]``."""
    sizes = np.array([len(part) for part in parts])
    groups = _groups(world, sizes)

    def group(positions: np.ndarray) -> np.ndarray:
        if world.engine == "loop":
            own = {name: leaf[positions[0]] for name, leaf in models.items()}
            return _hits(world, own, pixels, parts[positions[0]]).sum(keepdims=True)
        index = np.full((len(positions), int(sizes[positions].max())), -1, dtype=np.int64)
        for row, k in enumerate(positions):
            index[row, : sizes[k]] = parts[k]
        device = pixels.x.device
        where, mask = (torch.as_tensor(item, device=device) for item in (np.maximum(index, 0), index >= 0))
        own = tree.rows(models, torch.as_tensor(positions, device=device))
        with torch.no_grad():
            guess = torch.func.vmap(lambda p, i: world.network.predict(p, pixels.images(i)))(own, where)
        hits: np.ndarray = ((guess == pixels.y[where]) & mask).sum(1).cpu().numpy()
        return hits

    results = np.concatenate(_parallel(world.threads, group, groups))
    return results[np.argsort(np.concatenate(groups))]
