"""What a measured run says about its fleet: all that the clock needs to predict another run."""

import numpy as np

from pflbench.clock.fleet import Fleet, Floats
from pflbench.clock.timeline import Timeline
from pflbench.core.measures import Record

COMPUTED = {"generic": "contribute", "personal": "personalise"}  # stage on the timeline -> its batches in a record
LATE = 1.05  # a stage that took this many times its device's seconds is late


def rehearsed(timeline: Timeline, record: Record, fleet: Fleet) -> Fleet:
    """The fleet as a run shows it, the first round (libraries warm up) left out; no jitter.

    Seconds per batch of both stages, speed of a client's links including what a message costs, seconds of an
    aggregation. What the run does not show stays as in ``fleet``.
    """
    charged, rounds = record["costs"], timeline.rounds
    shown = slice(1 if len(rounds) > 1 else 0, None)

    def speed(stage: str, amounts: list[list[int]], given: Floats) -> Floats:
        """Units per second of every client: [C]."""
        units, seconds = np.zeros(len(given)), np.zeros(len(given))
        for each, cohort, amount in zip(rounds[shown], record["cohorts"][shown], amounts[shown], strict=True):
            units[each.clients] += np.array(amount)[np.isin(cohort, each.clients)]
            seconds[each.clients] += np.diff(getattr(each, stage))[:, 0]
        return np.divide(units, seconds, out=given.copy(), where=(units > 0) & (seconds > 0))

    def link(stage: str, numbers: int, given: Floats) -> Floats:
        bits = 8 * charged["bytes_per_number"] * numbers
        return speed(stage, [[bits] * len(cohort) for cohort in record["cohorts"]], given)

    with np.errstate(divide="ignore"):  # 0 seconds per batch: as fast as the machine
        generic = 1 / speed("generic", charged["contribute"], 1 / fleet.contribute_s)
        personal = 1 / speed("personal", charged["personalise"], 1 / fleet.personalise_s)
    return Fleet(
        name="rehearsed",
        contribute_s=generic,
        personalise_s=personal,
        down_bps=link("download", charged["down"], fleet.down_bps),
        up_bps=link("upload", charged["up"], fleet.up_bps),
        latency_s=np.zeros(len(generic)),
        aggregation_s=float(np.mean([np.diff(each.aggregation) for each in rounds[shown]])),
        compute_jitter=0.0,
        network_jitter=0.0,
        dropout=0.0,
        sources=dict.fromkeys(fleet.sources, "measured in a rehearsal"),
    )


def phases(timeline: Timeline) -> dict[str, float]:
    """Mean seconds of every phase: over clients and rounds, of an aggregation over rounds."""
    stages = ("download", "generic", "personal", "upload", "wait")
    lengths = {stage: np.concatenate([np.diff(getattr(each, stage)) for each in timeline.rounds]) for stage in stages}
    closing = np.array([np.diff(each.aggregation) for each in timeline.rounds])
    return {name: float(np.mean(seconds)) for name, seconds in {**lengths, "aggregation": closing}.items()}


def late(timeline: Timeline, record: Record, fleet: Fleet) -> float:
    """Share of the stages for which the machine was too slow to pass for the fleet's device; 0 where it need not."""
    slow = []
    for stage, key in COMPUTED.items():
        pace = fleet.contribute_s if stage == "generic" else fleet.personalise_s
        for each, cohort, batches in zip(timeline.rounds, record["cohorts"], record["costs"][key], strict=True):
            device = np.array(batches)[np.isin(cohort, each.clients)] * pace[each.clients]
            slow.append((np.diff(getattr(each, stage))[:, 0] > LATE * device) & (device > 0))
    return float(np.mean(np.concatenate(slow)))
