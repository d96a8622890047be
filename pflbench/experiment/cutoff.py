"""Cut-off personal work: the one place where the clock enters learning, and so a field of the experiment.

Before training, the clock says for every round and client how many personal batches fit before the next generic model is
there; the engine draws padding instead of the rest.
"""

from dataclasses import replace

import numpy as np

from pflbench.clock.fleet import Fleet
from pflbench.clock.timeline import personal_budget
from pflbench.core import tree
from pflbench.engine import engine


def cut(world: engine.World, rounds: int, fleet: Fleet, rng: np.random.Generator) -> engine.World:
    """The same world, but personal work stops when ``fleet`` has the next generic model at the client."""
    w, bank = engine.start(replace(world, bank=tree.repeat))  # never in a file: nothing is written before a run starts
    cohorts = [engine.cohort_of(world, round).tolist() for round in range(rounds)]
    charged = [[engine.charge(world, client, 0) for client in cohort] for cohort in cohorts]
    costs = {
        "contribute": [[generic for generic, _ in row] for row in charged],
        "personalise": [[personal for _, personal in row] for row in charged],
        "up": tree.numbers(engine.upload_of_nothing(world, w, bank)),
        "down": tree.numbers(w),
        "bytes_per_number": 4,
    }
    plan = {"experiment": {"clients": world.clients}, "cohorts": cohorts, "costs": costs}
    budget = personal_budget(plan, fleet, rng=rng)
    return replace(world, cutoff=[dict(zip(*row, strict=True)) for row in zip(cohorts, budget, strict=True)])
