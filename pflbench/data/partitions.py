"""A data set over clients: who trains, is tested and is validated on what.

A scheme (``schemes``, or a user's own function of the same form) deals out the training data; local tests follow the
training law of each client.
"""

from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from pflbench.core.errors import BadInput
from pflbench.core.fields import hyper
from pflbench.core.registry import Chosen, Functions, Thing
from pflbench.data import schemes
from pflbench.data.schemes import Indices, Labels, by_class, class_counts
from pflbench.data.splits import card_of


def file(*, path: Annotated[str, hyper("a split that `pflbench partition export` wrote")]) -> Path:
    """A split made before, training and test parts of every client; identified by its checksum, wherever it lies."""
    return Path(path)


class _Partitions(Functions):
    def identity(self, thing: Thing, fields: Mapping[str, Any], root: Path | None) -> str | None:
        """Of a split that was made elsewhere, its checksum."""
        return str(card_of(Path(fields["path"]))["checksum"]) if thing.target is file else thing.digest


SCHEMES = (schemes.iid, schemes.dirichlet, schemes.bernoulli_dirichlet, schemes.shards, schemes.natural, file)
PARTITIONS = _Partitions("partition", {scheme.__name__: scheme for scheme in SCHEMES})


def partition(
    labels: Labels,
    clients: int,
    scheme: Chosen,
    rng: np.random.Generator,
    users: Labels | None = None,
) -> list[Indices]:
    """C index lists by ``scheme``. Raises BadInput for anything unusable, what a user's own scheme gives included.

    users: [n], whose sample it is, for a scheme that has an argument of that name, as ``natural`` does.
    """
    if clients < 1:
        raise BadInput("clients", clients, "at least 1")
    if clients > len(labels):
        raise BadInput("clients", clients, f"at most {len(labels)}, the number of training samples")
    given = (users,) if "users" in signature(scheme.make).parameters else ()
    return checked(scheme.make(labels, clients, rng, *given), clients, len(labels), scheme.name)


def checked(parts: Sequence[Indices], clients: int, samples: int, name: str) -> list[Indices]:
    """``parts``, if they are one non-empty index list per client and no index is out of range or given twice."""
    if len(parts) != clients or not all(len(part) for part in parts):
        raise BadInput("partition", name, f"must give each of {clients} clients at least one sample")
    every = np.concatenate(parts)
    if every.min() < 0 or every.max() >= samples or len(np.unique(every)) != len(every):
        raise BadInput("partition", name, f"must give no sample to two clients, and none but 0 to {samples - 1}")
    return [np.sort(part).astype(np.int64) for part in parts]


def user_tests(parts: Sequence[Indices], users: Labels, test_users: Labels) -> list[Indices]:
    """C local test sets: the test samples of each client's own user. Raises BadInput for a user who has none."""
    tests = [np.flatnonzero(test_users == users[part[0]]) for part in parts]
    for client, test in enumerate(tests):
        if not len(test):
            raise BadInput("partition", f"client {client}", "its user has no test images")
    return tests


def local_tests(
    train_labels: Labels, parts: Sequence[Indices], test_labels: Labels, rng: np.random.Generator
) -> list[Indices]:
    """C local test sets from the official one that follow each client's training law; never empty.

    Client k gets n_k * n_test / n_train images, rounded, at least one; per class by largest remainder over n_kc / n_k,
    at most what the official test set has. Drawn without replacement inside a client, independently across clients, so
    clients may share images. Classes that the official test set lacks are left out of the law; raises BadInput if a
    client holds no other. Source: spectral co-distillation's release, which rounds down and can leave a client empty.
    """
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    pools = [np.flatnonzero(test_labels == c) for c in range(classes)]
    there = np.array([len(pool) for pool in pools])
    tests = []
    for client, counts in enumerate(class_counts(train_labels, parts, classes)):
        total = max(1, round(len(parts[client]) * len(test_labels) / len(train_labels)))
        tested = np.where(there > 0, counts, 0)
        if not tested.any():
            held = np.flatnonzero(counts).tolist()
            raise BadInput("partition", f"client {client} with classes {held}", "the test set has none of its classes")
        tests.append(_draw(pools, np.minimum(_apportion(total, tested, rng), there), rng))
    return tests


def hold_out(
    parts: Sequence[Indices], labels: Labels, fraction: float, rng: np.random.Generator
) -> tuple[list[Indices], list[Indices]]:
    """(C training parts, C validation parts): ``fraction`` of each client's data, per class by largest remainder.

    Rounded, but a client of one sample keeps it, and any other keeps at least one and gives at least one if
    ``fraction`` > 0. Raises BadInput unless 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise BadInput("validation", fraction, "at least 0 and less than 1, a fraction of each client's training data")
    kept, held = [], []
    for part in parts:
        total = min(max(round(fraction * len(part)), fraction > 0), len(part) - 1)
        pools = [part[members] for members in by_class(labels[part])]
        seats = _apportion(total, np.array([len(pool) for pool in pools]), rng)
        held.append(_draw(pools, seats, rng))
        kept.append(np.setdiff1d(part, held[-1], assume_unique=True))
    return kept, held


def _apportion(total: int, counts: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """int64[K] that sums to ``total``: shares in proportion to counts[K] by largest remainder, ties by lot, exact."""
    seats, rest = np.divmod(total * counts, counts.sum())
    ranked = np.lexsort((rng.random(len(counts)), -rest))
    seats[ranked[: total - seats.sum()]] += 1
    return seats


def _draw(pools: Sequence[Indices], seats: npt.NDArray[np.int64], rng: np.random.Generator) -> Indices:
    """seats[c] random members of pools[c], all together, sorted."""
    return np.sort(np.concatenate([rng.choice(p, size=s, replace=False) for p, s in zip(pools, seats, strict=True)]))
