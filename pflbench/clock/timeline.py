"""The clock: how many seconds a finished run would have taken on a given fleet, under a given protocol.

Time never enters learning. A record holds integers (batches per stage, numbers sent); this module turns them into
seconds, so any fleet and protocol replays on the same result. Axes: C clients, M cohort, m members present, R rounds.

A round, for every member present: download the generic model as soon as the server has it, generic stage, upload; the
server aggregates once the last upload is in. The protocols differ in one thing, when the upload leaves:

* ``compute_and_wait``: after the personal stage. A round costs T_g + T_p + T_c.
* ``wait_free``: before it. The personal stage runs in the shadow of T_c = upload + wait for the others + aggregation +
  download of the next model, and ends before the next generic stage starts. A round costs T_g + max(T_p, T_c).

The first download opens a run, its last aggregation and personal stages close it: the last T_c has no download, in both
protocols. ``block`` says whose unfinished personal stage holds up a client's next generic stage:

* ``"round"`` (default): anyone's, so rounds overlap in the network only. Then 1 <= gain <= 2 always: a round of
  compute-and-wait costs max(D + G + P + U) + A <= [max(D + G + U) + A] + [max(G + P)], with D, U download and upload, A
  aggregation, and neither bracket, summed over the rounds, exceeds the total of wait-free.
* ``"client"``: its own only. Never later than ``"round"``, but the gain has no bound: who is not sampled next hides its
  personal stage behind the rounds of others, while compute-and-wait makes everyone wait for it.

Assumed: the server's own link is no bottleneck; a message of no numbers takes no time; a client that drops out of a
round is absent from its timing and bytes, and learning is not affected.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pflbench.clock.fleet import Fleet, Floats
from pflbench.core.errors import BadInput
from pflbench.core.fields import pick

Ints = NDArray[np.int64]
Protocol = Literal["compute_and_wait", "wait_free"]
Block = Literal["round", "client"]
Visit = tuple[Ints, NDArray[np.bool_], Floats]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


@dataclass(frozen=True, eq=False)
class Round:
    """One round. A stage is [m, 2]: its start and its end, in seconds since the start of the run."""

    clients: Ints  # [m] the members present
    download: Floats
    generic: Floats
    upload: Floats
    wait: Floats  # for the others and the aggregation; the personal stage may run meanwhile
    personal: Floats
    aggregation: Floats  # [2] its end is when the next generic model is available
    end: float  # all aggregations and personal stages up to and including this round are over


@dataclass(frozen=True, eq=False)
class Timeline:
    """A whole run on a fleet under a protocol."""

    protocol: Protocol
    fleet: str
    rounds: tuple[Round, ...]
    down_bytes: int
    up_bytes: int

    @property
    def ends(self) -> Floats:
        """When each round is over, in seconds since the start of the run. [R]"""
        return np.array([each.end for each in self.rounds])

    @property
    def total_s(self) -> float:
        return float(self.ends.max(initial=0.0))

    @property
    def idle_share(self) -> float:
        """Share of client-time spent neither computing nor transferring.

        A client's time runs, in every round it is present, from the start of its download until the aggregation and its
        own personal stage are over.
        """
        who = np.concatenate([np.zeros(0, np.int64), *(each.clients for each in self.rounds)])
        stages = ("download", "generic", "upload", "wait", "personal")
        spans = {s: np.concatenate([np.zeros((0, 2)), *(getattr(each, s) for each in self.rounds)]) for s in stages}
        last = np.maximum(spans.pop("wait")[:, 1], spans["personal"][:, 1])
        there = np.stack([spans["download"][:, 0], last], axis=1)
        mine = [who == client for client in np.unique(who)]
        attended = sum(_covered(there[rows]) for rows in mine)
        busy = sum(_covered(np.concatenate([span[rows] for span in spans.values()])) for rows in mine)
        return max(0.0, 1 - busy / attended) if attended else 0.0


def simulate(
    record: Mapping[str, Any], fleet: Fleet, protocol: Protocol, *, rng: np.random.Generator, block: Block = "round"
) -> Timeline:
    """The timeline of a finished run; the module says what ``protocol`` and ``block`` mean.

    ``rng`` is copied, not advanced: calls with the same one meet the same jitter and drop-outs, whatever the protocol.
    """
    overlap = pick(protocol, PROTOCOLS, "protocol") == "wait_free"
    alone = pick(block, get_args(Block), "block") == "client"
    costs = record["costs"]
    aggregation_s = fleet.aggregation_s if costs["up"] else 0.0
    free = np.zeros(record["experiment"]["clients"])  # [C] when the last personal stage of each client is over
    rounds: list[Round] = []
    opens = 0.0
    for cohort, here, seconds in _visits(record, fleet, rng):
        who, (download_s, generic_s, personal_s, upload_s) = cohort[here], seconds[:, here]
        received = opens + download_s
        start = np.maximum(received, free[who] if alone else free.max())
        generic = start + generic_s
        free[who] = personal = generic + personal_s
        leaves = generic if overlap else personal
        sent = leaves + upload_s
        complete = sent.max(initial=opens)
        closes = complete + (aggregation_s if len(who) else 0.0)
        spans = {"download": (opens, received), "generic": (start, generic), "upload": (leaves, sent)}
        spans |= {"wait": (sent, closes), "personal": (generic, personal)}
        stages = {stage: np.stack(np.broadcast_arrays(*span), axis=-1) for stage, span in spans.items()}
        over = float(max(closes, free.max()))
        rounds.append(Round(who, aggregation=np.array([complete, closes]), end=over, **stages))
        opens = closes
    messages = costs["bytes_per_number"] * sum(len(each.clients) for each in rounds)
    return Timeline(protocol, fleet.name, tuple(rounds), messages * costs["down"], messages * costs["up"])


def compare(
    record: Mapping[str, Any], fleet: Fleet, *, rng: np.random.Generator, block: Block = "round"
) -> dict[Protocol, Timeline]:
    """Both protocols on the same draws."""
    return {protocol: simulate(record, fleet, protocol, rng=rng, block=block) for protocol in PROTOCOLS}


def gain(timelines: Mapping[Protocol, Timeline]) -> float:
    """How many times faster wait-free is than compute-and-wait."""
    slow, fast = (timelines[protocol].total_s for protocol in PROTOCOLS)
    return slow / fast if fast else 1.0


def gain_bound(t_g: ArrayLike, t_p: ArrayLike, t_c: ArrayLike) -> Floats:
    """Gain of wait-free for equal clients in the steady state: (T_g + T_p + T_c) / (T_g + max(T_p, T_c)), at most 2."""
    generic, personal, network = (np.asarray(seconds, dtype=np.float64) for seconds in (t_g, t_p, t_c))
    hidden, shown = np.minimum(personal, network), generic + np.maximum(personal, network)
    return np.asarray(1 + np.divide(hidden, shown, out=np.zeros_like(hidden + shown), where=shown > 0))


def personal_budget(record: Mapping[str, Any], fleet: Fleet, *, rng: np.random.Generator) -> list[list[int]]:
    """``cut``: how many of the planned personal batches end before the next generic model arrives, per cohort member.

    Personal work never delays anyone then, so rounds run as if there were none. The next model arrives when the
    aggregation is over plus the client's download time of this round. Who drops out learns all the same: as planned.
    """
    plans = record["costs"]["personalise"]
    none = {**record, "costs": {**record["costs"], "personalise": [[0] * len(plan) for plan in plans]}}
    bare = simulate(none, fleet, "wait_free", rng=rng)
    budgets = []
    for plan, each, (_, here, seconds) in zip(plans, bare.rounds, _visits(record, fleet, rng), strict=True):
        part = np.ones(len(plan))  # of the planned work
        left, needed = each.aggregation[1] + seconds[0, here] - each.generic[:, 1], seconds[2, here]
        part[here] = np.divide(left, needed, out=np.ones_like(left), where=needed > left)
        budgets.append(np.floor(part * plan + 1e-9).astype(int).tolist())
    return budgets


def _visits(record: Mapping[str, Any], fleet: Fleet, rng: np.random.Generator) -> Iterator[Visit]:
    """Per round: the cohort [M], who of it is present [M], seconds of download, generic, personal stage, upload [4, M].

    Chance is drawn round by round and for all clients, so that neither later rounds nor the cohort move a draw.
    """
    costs, clients = record["costs"], record["experiment"]["clients"]
    if len(fleet.latency_s) != clients:
        raise BadInput(f"clients of fleet {fleet.name}", len(fleet.latency_s), f"the record has {clients}")
    draws, bits = deepcopy(rng), 8 * costs["bytes_per_number"]
    down_s = (fleet.latency_s + bits * costs["down"] / fleet.down_bps) * (costs["down"] > 0)
    up_s = (fleet.latency_s + bits * costs["up"] / fleet.up_bps) * (costs["up"] > 0)
    for members, generic, personal in zip(record["cohorts"], costs["contribute"], costs["personalise"], strict=True):
        cohort = np.array(members, dtype=np.int64)
        present = draws.random(clients) >= fleet.dropout
        compute, network = draws.standard_normal((2, clients))
        slow, lag = np.exp(fleet.compute_jitter * compute), np.exp(fleet.network_jitter * network)
        batches = np.array(generic) * (fleet.contribute_s * slow)[cohort]
        own = np.array(personal) * (fleet.personalise_s * slow)[cohort]
        yield cohort, present[cohort], np.stack([(down_s * lag)[cohort], batches, own, (up_s * lag)[cohort]])


def _covered(intervals: Floats) -> float:
    """Length of a union of intervals. intervals: [n, 2]"""
    ordered = intervals[np.argsort(intervals[:, 0])]
    before = np.concatenate([ordered[:1, 0], np.maximum.accumulate(ordered[:, 1])[:-1]])
    return float(np.maximum(0, ordered[:, 1] - np.maximum(ordered[:, 0], before)).sum())
