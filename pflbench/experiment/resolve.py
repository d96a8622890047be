"""An experiment as asked for -> all of it written out, every name looked up and every field checked."""

from dataclasses import dataclass
from pathlib import Path

from pflbench.baselines import METHODS
from pflbench.clock.fleet import FLEETS
from pflbench.core.registry import Chosen, Kind
from pflbench.data.datasets import DATASETS
from pflbench.data.partitions import PARTITIONS
from pflbench.experiment.experiment import Choice, Experiment
from pflbench.experiment.schedules import SCHEDULES
from pflbench.models.zoo import MODELS

KINDS: dict[str, Kind] = {  # field of an experiment -> what can be chosen; a model may depend on the data set
    "dataset": DATASETS,
    "method": METHODS,
    "partition": PARTITIONS,
    "model": MODELS,
    "schedule": SCHEDULES,
    "cut": FLEETS,
}


@dataclass(frozen=True)
class Resolved:
    """An experiment with every default written out, and what its names stand for. chosen: by field, see ``KINDS``."""

    experiment: Experiment
    chosen: dict[str, Chosen]

    @property
    def address(self) -> str:
        """16 hex digits that identify the experiment."""
        return self.experiment.address


def resolve(experiment: Experiment, root: Path | None = None) -> Resolved:
    """Everything that ``experiment`` names, looked up once. Raises BadInput.

    root: folder of the data, needed for a data set that its content identifies unless the digest is given.
    """
    chosen: dict[str, Chosen] = {}
    for field, kind in KINDS.items():
        asked: Choice | None = getattr(experiment, field)
        if asked is not None:
            chosen[field] = kind.choose(asked.name, asked.fields, digest=asked.digest, root=root, others=chosen)
    named = {field: Choice(name=it.name, fields=it.fields, digest=it.digest) for field, it in chosen.items()}
    seed = experiment.seed if experiment.partition_seed is None else experiment.partition_seed
    return Resolved(experiment.model_copy(update={**named, "partition_seed": seed}), chosen)
