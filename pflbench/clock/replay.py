"""Finished results on the clock: what they would have taken on any fleet, in numbers. Never torch.

The fleet and its chance depend on a seed, the fleet's name and the number of clients, never on the result: every method
meets the same devices, links, jitter and drop-outs.
"""

from collections.abc import Mapping
from typing import Any

from pflbench.clock.fleet import draw_fleet, load_fleet
from pflbench.clock.timeline import Block, Protocol, Timeline, compare, gain
from pflbench.core import measures
from pflbench.core.measures import Record

DEFAULT_FLEET = "lte"  # the slowest and most uneven links: where a protocol for the network has to prove itself
Row = dict[str, Any]
SHORT = {"compute_and_wait": "compute-and-wait", "wait_free": "wait-free"}


def replay(record: Record, fleet: str, *, seed: int, block: Block = "round") -> dict[Protocol, Timeline]:
    """Both protocols on a fleet of the package or of a file."""
    drawn, rng = draw_fleet(load_fleet(fleet), record["experiment"]["clients"], seed=seed)
    return compare(record, drawn, rng=rng, block=block)


def cost_rows(record: Record, timelines: Mapping[Protocol, Timeline]) -> list[Row]:
    """One row per protocol: seconds, share of client-time idle, gain over compute-and-wait, bytes of all clients."""
    rounds = len(record["cohorts"])
    return [
        {
            "address": record["address"],
            "method": record["experiment"]["method"]["name"],
            "fleet": each.fleet,
            "protocol": protocol,
            "rounds": rounds,
            "total_s": each.total_s,
            "idle_share": each.idle_share,
            "gain": gain(timelines) if protocol == "wait_free" else 1.0,
            "down_bytes": each.down_bytes,
            "up_bytes": each.up_bytes,
        }
        for protocol, each in timelines.items()
    ]


def curve_rows(record: Record, timelines: Mapping[Protocol, Timeline]) -> list[Row]:
    """One row per evaluation, protocol and model: when the round was over, and the accuracy, a fraction."""
    curves = {"GM": measures.generic_curve(record), "PM": measures.local_curve(record, "personal")}
    name = {"address": record["address"], "method": record["experiment"]["method"]["name"]}
    return [
        {
            **name,
            "protocol": p,
            "model": model,
            "round": r,
            "seconds": float(each.ends[r - 1]),
            "accuracy": float(value),
        }
        for p, each in timelines.items()
        for model, curve in curves.items()
        if curve is not None
        for r, value in zip(record["curve"]["rounds"], curve, strict=True)
    ]
