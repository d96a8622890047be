"""The engine: with ``evaluation``, the only module that knows there is more than one client.

``start`` makes the state before round 0, ``play`` plays one round. A stage runs either for one client after another
(``loop``, the reference) or for many at once (``vmap``); the two are equal to rounding, and the number of threads
changes no bit.

Memory: client states grow with the clients C (one row each), activations and gradients with the chunk, uploads with
the cohort M.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from pflbench.core import tree
from pflbench.core.local import Feed, Task, alone, plain
from pflbench.core.method import Method
from pflbench.core.streams import stream
from pflbench.core.tree import Tree
from pflbench.engine.captured import WHOLE, Recorder, StageGraph, fold_with
from pflbench.engine.memory import Part
from pflbench.engine.task import PAD, Network, Pixels

OVERHEAD = 48  # a step's fixed cost, in units of one client's share: 0.65 ms and 0.0135 ms for the MLP on one core
Stage = Literal["contribute", "personalise", "adapt"]
StageFunction = Callable[[Task, Tree, Tree, Feed], Tree]


class Federation(NamedTuple):
    """All that learning has changed: the server's state w and the clients' c, every leaf of c with a leading axis C."""

    w: Tree
    c: Tree


class Cost(NamedTuple):
    """What one round cost. cohort: [M]; contribute, personalise: one-batch gradients per member; up, down: numbers each."""

    cohort: list[int]
    contribute: list[int]
    personalise: list[int]
    up: int
    down: int


class Drawn(NamedTuple):
    """What a group of clients is computed from, still on the host. positions: in the cohort; awake: see ``Feed``."""

    positions: np.ndarray
    draws: dict[str, Tensor]
    awake: list[list[bool]]
    pixels: Pixels


@dataclass(frozen=True)
class World:
    """All that does not change during a run.

    train, validation: per client, indices into ``pixels``; test: per client, indices into ``official``. weight: [C], the
    weight of a client's upload before normalisation. decay(round): factor on the learning rate. chunk: most clients in
    one vmapped call. threads: how many clients (loop) or chunks (vmap) run at a time; changes no bit. augment: of every
    image that trains, with ``crop_flip`` a random crop after padding and a random mirror image. cutoff: per round,
    client -> most batches of its personal stage; None: all that are planned. recorder: captures
    graphs where there is a GPU; captured: the whole stages captured so far.
    bank: puts the clients' states where they lie; held: what is held, by name.
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
    augment: Literal["none", "crop_flip"] = "none"
    cutoff: Sequence[Mapping[int, int]] | None = None
    recorder: Recorder | None = None
    bank: Callable[[Tree, int], Tree] = tree.repeat
    held: Mapping[str, Part] = field(default_factory=dict)
    captured: dict[tuple[object, ...], StageGraph] = field(default_factory=dict)

    @property
    def clients(self) -> int:
        return len(self.train)

    @property
    def block(self) -> int:
        """Clients whose models an evaluation holds at a time."""
        return min(self.clients, 4 * self.threads if self.engine == "loop" else self.chunk)


def start(world: World) -> Federation:
    """The state before round 0: every client holds the same first state, by value."""
    w, c = world.method.init(world.task, world.task.start)
    return Federation(tree.clone(w), world.bank(c, world.clients))


def cohort_of(world: World, round: int) -> np.ndarray:
    """The clients of a round, sorted: [M]. The same for every method."""
    chosen = stream(world.seed, "cohort", round).choice(world.clients, world.cohort_size, replace=False)
    return np.sort(chosen)


def play(world: World, federation: Federation, round: int) -> tuple[Federation, Cost]:
    """One round. The clients' states of ``federation`` are donated: their rows are overwritten in place."""
    w, bank = federation
    cohort = cohort_of(world, round)
    index = torch.as_tensor(cohort, device=world.pixels.device)
    work = world.method.work(world.task)
    run = partial(stage, world, cohort=cohort, round=round)
    uploads, c = run("contribute", world.method.contribute, w, tree.rows(bank, index), epochs=work.contribute)
    weight = world.weight[cohort] / world.weight[cohort].sum()
    mean = tree.mean(uploads, torch.as_tensor(weight, device=index.device))
    c = run("personalise", world.method.personalise, w, c, epochs=work.personalise)
    tree.put_rows(bank, index, c)
    charged = [charge(world, int(client), round) for client in cohort]
    cost = Cost(
        cohort=cohort.tolist(),
        contribute=[generic for generic, _ in charged],
        personalise=[personal for _, personal in charged],
        up=tree.numbers(uploads) // len(cohort),
        down=tree.numbers(w),
    )
    return Federation(tree.clone(world.method.merge(w, mean)), bank), cost


def charge(world: World, client: int, round: int) -> tuple[int, int]:
    """What a round costs a client: one-batch gradients of the generic and of the personal stage."""
    work, steps = world.method.work(world.task), int(_steps(world, np.array([client]))[0])
    return work.contribute * work.gradients * steps, _most(
        world, client, round, "personalise", work.personalise * steps
    )


def upload_of_nothing(world: World, w: Tree, bank: Tree) -> Tree:
    """What a client sends that has no batch: the structure, shapes and types of every upload."""
    mine = tree.rows(bank, torch.zeros(1, dtype=torch.int64, device=world.pixels.device))
    upload, _ = stage(world, "contribute", world.method.contribute, w, mine, np.array([0]), 0, epochs=0)
    return tree.each(lambda leaf: leaf[0], upload)


def finite(federation: Federation) -> bool:
    """Whether every number of the state is finite."""
    leaves = tree.flatten(tuple(federation)).values()
    return all(bool(torch.isfinite(part).all()) for leaf in leaves for part in torch.split(leaf.flatten(), 2**24))


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
    batches = table.reshape(-1, world.batch_size)
    batches[_most(world, client, round, stage, len(batches)) :] = -1  # a batch of padding does nothing
    return table


def _most(world: World, client: int, round: int, stage: Stage, planned: int) -> int:
    """How many of the planned batches of a stage are not cut off."""
    if world.cutoff is None or stage != "personalise":
        return planned
    return min(planned, world.cutoff[round][client])


def _distort(world: World, client: int, round: int, stage: Stage, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each of the client's n samples in each epoch: corner of the crop, [E, n, 2]; whether it is mirrored, [E, n]."""
    count, chance = len(world.train[client]), stream(world.seed, "augment", round, client, stage)
    crop, flip = np.empty((epochs, count, 2), dtype=np.int64), np.empty((epochs, count), dtype=bool)
    for epoch in range(epochs):
        crop[epoch], flip[epoch] = chance.integers(0, 2 * PAD + 1, (count, 2)), chance.random(count) < 0.5
    return crop, flip


def _feeds(
    world: World, clients: np.ndarray, round: int, stage: Stage, epochs: int, to_longest: bool
) -> tuple[dict[str, Tensor], list[list[bool]]]:
    """Draws of several clients, padded to the longest of them or of all (``to_longest``): index, mask [K, E, S, B], on the
    host.

    With augmentation also crop [K, E, S, B, 2] and flip [K, E, S, B]. Also [E][S]: True where every one has a sample.
    """
    steps = _steps(world, clients)
    longest, size = int(_steps(world, np.arange(world.clients) if to_longest else clients).max()), world.batch_size
    index = np.full((len(clients), epochs, longest * size), -1, dtype=np.int64)
    for row, client in enumerate(clients):
        table = _draw(world, int(client), round, stage, epochs)
        index[row, :, : table.shape[1]] = table
    positions = index.reshape(len(clients), epochs, longest, size)
    draws = {"index": np.maximum(positions, 0), "mask": positions >= 0}
    if world.augment == "crop_flip":
        crop, flip = np.zeros((*index.shape, 2), dtype=np.int64), np.zeros(index.shape, dtype=bool)
        for row, client in enumerate(clients):
            corners, mirrored = _distort(world, int(client), round, stage, epochs)
            crop[row, :, : corners.shape[1]], flip[row, :, : corners.shape[1]] = corners, mirrored
        draws |= {"crop": crop.reshape(*positions.shape, 2), "flip": flip.reshape(positions.shape)}
    varies = to_longest or (world.cutoff is not None and stage == "personalise")
    always = 0 if varies else int(steps.min())  # a stage captured once serves cohorts of any length
    whole = [[step < always for step in range(longest)] for _ in range(epochs)]
    return {name: torch.as_tensor(draw) for name, draw in draws.items()}, whole


def stage(
    world: World, name: Stage, function: StageFunction, w: Tree, c: Tree, cohort: np.ndarray, round: int, epochs: int
) -> Tree:
    """``function`` at every client of the cohort. c and the result: leaves [M, ...], in the order of the cohort."""
    device = world.pixels.device
    decay = torch.tensor(world.decay(round), dtype=world.network.dtype, device=device)
    steps = _steps(world, cohort)
    # a stage captured whole needs one shape for every round: pad to the longest client there is
    longest = epochs * int(_steps(world, np.arange(world.clients)).max())
    whole = world.recorder is not None and 0 < longest <= WHOLE

    def prepare(positions: np.ndarray) -> Drawn:
        draws, awake = _feeds(world, cohort[positions], round, name, epochs, whole)
        most = len(positions) * max(map(len, world.train)) if whole else None
        pixels, draws["index"] = world.pixels.near(draws["index"], most)
        return Drawn(positions, draws, awake, pixels)

    def group(drawn: Drawn) -> Tree:
        positions, awake, pixels = drawn.positions, drawn.awake, drawn.pixels.landed()
        draws = {name: draw.to(device, non_blocking=True) for name, draw in drawn.draws.items()}
        moved = (pixels.x, pixels.y) if world.pixels.apart else ()  # what a captured stage has to be given anew
        mine = tree.rows(c, torch.as_tensor(positions, device=device))
        run = plain if whole or world.recorder is None else fold_with(world.recorder)

        def all_of(inputs: Tree) -> Tree:
            w, c, draws, decay, given = inputs
            batch = (replace(pixels, x=given[0], y=given[1]) if given else pixels).batch

            def one(c: Tree, draws: dict[str, Tensor]) -> Tree:
                return function(world.task, w, c, Feed(draws, batch, decay, awake, run))

            if world.engine == "vmap":
                return torch.func.vmap(one)(c, draws)
            with alone():
                return tree.each(lambda leaf: leaf[None], one(*tree.each(lambda leaf: leaf[0], (c, draws))))

        inputs = (w, mine, draws, decay, moved)
        if not whole or world.recorder is None:
            return all_of(inputs)
        key = (name, len(positions), epochs)
        if key not in world.captured:
            world.captured[key] = StageGraph(world.recorder, all_of, inputs)
        return world.captured[key](inputs)

    groups = groups_of(world, steps)
    if world.pixels.apart and world.threads == 1:
        results = [group(drawn) for drawn in ahead(prepare, groups)]
    else:
        results = parallel(world.threads, lambda positions: group(prepare(positions)), groups)
    back = torch.as_tensor(np.argsort(np.concatenate(groups)), device=device)
    return tree.rows(tree.concat(results), back)


def groups_of(world: World, lengths: np.ndarray) -> list[np.ndarray]:
    """Which clients are computed together: one by one (loop), those of similar length (vmap), as many as fit (graphs)."""
    if world.engine == "loop":
        return [np.array([position]) for position in range(len(lengths))]
    if world.recorder is not None:  # padded steps are cheap beside launches, and one size means one capture
        return np.array_split(np.arange(len(lengths)), -(-len(lengths) // world.chunk))
    return chunks(lengths, world.chunk)


Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(threads: int, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """``function`` of every item, in order; several at a time, each on one core, so that no bit depends on ``threads``."""
    if threads == 1 or len(items) == 1:
        return [function(item) for item in items]
    return list(_pool(threads).map(function, items))


def ahead(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """``function`` of every item, in order; the next is computed in a thread while the caller is busy with this one."""
    coming = _pool(1).submit(function, items[0])
    for item in items[1:]:
        done, coming = coming.result(), _pool(1).submit(function, item)
        yield done
    yield coming.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
