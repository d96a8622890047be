"""Partition schemes: labels -> the training indices of every client. Pure functions; all chance comes from ``rng``.

Axes: n training samples, C clients, K classes. Every scheme gives each client a sorted, non-empty index list, no index
to two clients, and ends after a bounded number of draws: nothing is redrawn until it fits. ``iid``, ``dirichlet`` and
``bernoulli_dirichlet`` hand out every sample; ``shards`` does if C * k >= K, else some classes have no holder.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
import numpy.typing as npt

from pflbench.core.errors import BadInput
from pflbench.core.fields import hyper

Indices = npt.NDArray[np.int64]  # [any]: positions in a data set, sorted, without repeats


Labels = npt.NDArray[np.int64]  # [n]: class numbers, 0 to K - 1


Scheme = Callable[..., list[Indices]]  # (labels, clients, rng, *, fields) -> C index lists


def iid(labels: Labels, clients: int, rng: np.random.Generator) -> list[Indices]:
    """Shuffled and dealt out: sizes differ by at most one sample."""
    return _parts(rng.permutation(np.arange(len(labels)) % clients), clients)


def dirichlet(
    labels: Labels,
    clients: int,
    rng: np.random.Generator,
    *,
    alpha: Annotated[float, hyper("concentration: small is skewed, large is even", source="PFLlib", gt=0)] = 0.1,
    minimum: Annotated[int, hyper("fewest training samples of a client", source="FL-bench", ge=1)] = 10,
) -> list[Indices]:
    """Label Dirichlet: each class is cut at its own Dir(alpha) shares over the clients, so sizes are skewed as well.

    Yurochkin et al., ICML 2019; Hsu et al., arXiv 1909.06335 draw per client instead: another law. Departure: where the
    usual code redraws until every client holds ``minimum``, the largest clients give up random samples.
    Raises BadInput if C * minimum > n.
    """
    owner = np.empty(len(labels), np.int64)
    for members in by_class(labels):
        cuts = np.floor(len(members) * np.cumsum(_shares(alpha, clients, rng))[:-1])
        owner[rng.permutation(members)] = np.searchsorted(cuts, np.arange(len(members)), side="right")
    return _parts(_fill(owner, clients, minimum, rng), clients)


def bernoulli_dirichlet(
    labels: Labels,
    clients: int,
    rng: np.random.Generator,
    *,
    p: Annotated[
        float, hyper("chance that a client holds a class", source="spectral co-distillation, README", gt=0, le=1)
    ] = 0.7,
    alpha: Annotated[
        float, hyper("evenness among a class's holders", source="spectral co-distillation, README", gt=0)
    ] = 10.0,
    minimum: Annotated[int, hyper("fewest training samples of a client", source="ours", ge=1)] = 1,
) -> list[Indices]:
    """Bernoulli(p) x Dirichlet(alpha): Bernoulli holders of a class, its samples drawn to them one by one.

    Spectral co-distillation, NeurIPS 2023, arXiv 2401.17124, as released (``non_iid_dirichlet_sampling``). A client's
    classes follow the law "Bernoulli, redrawn while empty", drawn directly: the first one held is truncated geometric.
    Departures: a class without a holder goes to one random client (released: crash); ``minimum``, as in ``dirichlet``.
    Raises BadInput if C * minimum > n.
    """
    classes = by_class(labels)
    number = np.arange(len(classes))
    chance = (1 - p) ** number
    first = rng.choice(number, size=(clients, 1), p=chance / chance.sum())
    holds = (number == first) | ((number > first) & (rng.random((clients, len(classes))) < p))  # [C, K]
    owner = np.empty(len(labels), np.int64)
    for members, column in zip(classes, holds.T, strict=True):
        holders = np.flatnonzero(column) if column.any() else rng.integers(clients, size=1)
        owner[members] = rng.choice(holders, size=len(members), p=_shares(alpha, len(holders), rng))
    return _parts(_fill(owner, clients, minimum, rng), clients)


def shards(
    labels: Labels,
    clients: int,
    rng: np.random.Generator,
    *,
    k: Annotated[int, hyper("classes per client", source="FedAvg, McMahan et al. 2017", ge=1)] = 2,
) -> list[Indices]:
    """Pathological: exactly k distinct classes per client, each class split evenly among its holders.

    After FedRep (Collins et al., ICML 2021), where a client may get one class twice. The numbers of holders of any two
    classes differ by at most one; classes are drawn in proportion to the holders they still lack, so no group of
    clients shares its classes by construction. Raises BadInput if k > K or a class has fewer samples than holders.
    """
    classes = by_class(labels)
    if k > len(classes):
        raise BadInput("partition.k", k, f"at most {len(classes)}, the number of classes")
    places = rng.permutation(np.arange(len(classes)) < clients * k % len(classes)) + clients * k // len(classes)
    for members, wanted in zip(classes, places, strict=True):
        if len(members) < wanted:
            raise BadInput(
                "partition.k", k, f"too large for {clients} clients: a class of {len(members)} needs {wanted}"
            )
    owner = np.full(len(labels), -1, np.int64)
    for members, holders in zip(classes, _deal(places, clients, k, rng).T, strict=True):
        if holders.any():
            owner[rng.permutation(members)] = np.resize(rng.permutation(np.flatnonzero(holders)), len(members))
    return _parts(owner, clients)


def natural(
    labels: Labels,
    clients: int,
    rng: np.random.Generator,
    users: Labels | None = None,
    *,
    column: Annotated[str, hyper("column of the users; empty: the one that the data were prepared with")] = "",
    minimum: Annotated[int, hyper("fewest training samples of a user who takes part", source="ours", ge=1)] = 10,
    classes: Annotated[int, hyper("fewest classes of a user who takes part", source="ours", ge=1)] = 2,
) -> list[Indices]:
    """A client is a user of the data set (users: [n], -1 for nobody); C of those who may take part, drawn at random.

    Raises BadInput if the data set has no users or too few of them may take part.
    """
    if users is None:
        raise BadInput("partition", "natural", "needs a data set with users, such as hf:flwrlabs/femnist")
    parts = _parts(users, int(users.max()) + 1)
    small = np.array([len(part) < minimum for part in parts])
    plain = np.array([len(np.unique(labels[part])) < classes for part in parts])
    able = np.flatnonzero(~(small | plain))
    if clients > len(able):
        why = f"{small.sum()} have fewer than {minimum} samples, {plain.sum()} fewer than {classes} classes"
        raise BadInput("clients", clients, f"at most {len(able)}: of {len(parts)} users {why}")
    return [parts[user] for user in np.sort(rng.choice(able, clients, replace=False))]


def class_counts(labels: Labels, parts: Sequence[Indices], classes: int) -> npt.NDArray[np.int64]:
    """int64[C, K]: the samples of each class at each client."""
    return np.stack([np.bincount(labels[part], minlength=classes) for part in parts])


def label_distance(labels: Labels, parts: Sequence[Indices]) -> float:
    """Mean over clients of the total variation distance (0 to 1) from a client's label law to that of ``labels``."""
    overall = np.bincount(labels) / len(labels)
    counts = class_counts(labels, parts, len(overall))
    return float(np.abs(counts / counts.sum(1, keepdims=True) - overall).sum(1).mean() / 2)


def by_class(labels: Labels) -> list[Indices]:
    """The positions of each class that occurs, in the order of class numbers."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _parts(owner: Indices, clients: int) -> list[Indices]:
    """owner[n], the client of each sample or -1 -> C sorted index lists."""
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(clients + 1))
    return [order[start:end] for start, end in pairwise(bounds)]


def _shares(alpha: float, size: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """One draw of Dir(alpha, ..., alpha), [size], for any alpha > 0.

    Normalised gammas, drawn as G(a) = G(a + 1) U^(1/a) with U = exp(-E) (Marsaglia and Tsang 2000, section 6) and
    multiplied by one factor that keeps the largest in range: for small alpha all of them would underflow to zero.
    """
    exponent = rng.exponential(size=size)
    with np.errstate(over="ignore"):
        gammas = rng.gamma(alpha + 1, size=size) * np.exp((exponent.min() - exponent) / alpha)
    shares = gammas / gammas.max()
    return np.asarray(shares / shares.sum())


def _fill(owner: Indices, clients: int, minimum: int, rng: np.random.Generator) -> Indices:
    """``owner`` with every client at ``minimum`` or more: the largest client of the moment gives up a random sample.

    Ends after at most C * minimum moves: as C * minimum <= n, while one client is below the minimum the largest is
    above it. So a client that was filled is never asked to give.
    """
    if clients * minimum > len(owner):
        raise BadInput("partition.minimum", minimum, f"at most {len(owner) // clients} with {clients} clients")
    owner = owner.copy()
    pools = [rng.permutation(part).tolist() for part in _parts(owner, clients)]
    sizes = np.array([len(pool) for pool in pools])
    for poor in np.flatnonzero(sizes < minimum):
        while sizes[poor] < minimum:
            rich = sizes.argmax()
            owner[pools[rich].pop()] = poor
            sizes[rich] -= 1
            sizes[poor] += 1
    return owner


def _deal(places: Indices, clients: int, k: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """bool[C, K] with k ones in each row and places[c] in column c.

    Always ends: with ``left`` rows to go no column lacks more than ``left``, and one that lacks exactly ``left`` is
    taken now; the lacks sum to k * left, so at most k columns are in that case and at least k lack something.
    """
    places, holds = places.copy(), np.zeros((clients, len(places)), bool)
    for client in range(clients):
        left = clients - client
        with np.errstate(divide="ignore"):
            key = rng.exponential(size=len(places)) / np.where(places == left, np.inf, places)
        chosen = np.argsort(key)[:k]
        holds[client, chosen] = True
        places[chosen] -= 1
    return rng.permutation(holds)
