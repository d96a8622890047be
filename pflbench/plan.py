"""What is run: an experiment and its address; how it is run: a machine.

Everything that may change a number beyond rounding is a field of ``Experiment`` and is hashed into the address.
Everything else (device, engine, threads, paths) is a field of ``Machine`` and is not.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_serializer

from pflbench import data
from pflbench.errors import BadInput
from pflbench.fields import canonical, hyper, parse, pick, resolve

MEANING = 1  # raised by hand when the same experiment gives other numbers on purpose (tests/test_golden.py)


class Choice(BaseModel):
    """Something chosen by name, with its fields; ``digest`` identifies code or data that lives outside this package."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    fields: dict[str, Any] = {}
    digest: str | None = None


def _choice(value: Any) -> Any:
    if isinstance(value, str):
        name, fields = parse(value, "choice")
        return {"name": name, "fields": fields}
    if isinstance(value, Mapping) and "fields" not in value:
        rest = {key: item for key, item in value.items() if key not in ("name", "digest")}
        return {"name": value.get("name"), "fields": rest, "digest": value.get("digest")}
    return value


def _dataset(value: Any) -> Any:
    if isinstance(value, str):
        name, fields = data.parse(value)
        return {"name": name, "fields": fields}
    return _choice(value)


Chosen = Annotated[Choice, BeforeValidator(_choice)]
ChosenData = Annotated[Choice, BeforeValidator(_dataset)]


class Experiment(BaseModel):
    """One experiment. The defaults run in seconds on the embedded digits and tell methods apart."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    method: Chosen = Field(description="method, NAME or NAME:field=value,... or ./file.py")
    dataset: ChosenData = Field(Choice(name="digits"), description="data set, NAME or NAME:field=value,...")
    augment: Literal["none", "crop_flip"] = Field(
        "none", description="of images that train: random crop after padding by 4, random mirror image"
    )
    partition: Chosen = Field(
        Choice(name="dirichlet", fields={"alpha": 0.1}), description="how samples are split over clients"
    )
    clients: int = Field(20, ge=1, description="number of clients")
    participation: float = Field(0.5, gt=0, le=1, description="share of the clients in each round's cohort")
    rounds: int = Field(40, ge=1, description="communication rounds")
    epochs: int = Field(2, ge=1, description="local epochs of the generic stage per round")
    batch_size: int = Field(10, ge=1, description="samples per local step")
    lr: float = Field(0.1, gt=0, description="learning rate of local SGD, per step")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum of local SGD; starts from zero in every stage")
    weight_decay: float = Field(0.0, ge=0, description="weight decay of local SGD, on every parameter")
    schedule: Chosen = Field(Choice(name="constant"), description="learning rate over the rounds")
    model: Chosen = Field(Choice(name="auto"), description="model; auto: mlp for digits, cnn for anything larger")
    weighting: Literal["samples", "uniform"] = Field("samples", description="weight of a client's upload in the mean")
    batchnorm: Literal["aggregate", "local"] = Field(
        "aggregate", description="batch statistics: averaged, or kept local"
    )
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = Field(
        "float32", description="arithmetic of training"
    )
    validation: float = Field(
        0.0, ge=0, lt=1, description="share of each client's training data held out for validation"
    )
    eval_every: int = Field(1, ge=1, description="rounds between evaluations; the last round is always evaluated")
    seed: int = Field(0, ge=0, description="seed of weights, cohorts and batches")
    partition_seed: int | None = Field(None, ge=0, description="seed of the partition; the same as seed if not given")
    cut: Chosen | None = Field(
        None, description="fleet on which personal work stops when the next generic model arrives; none: it always ends"
    )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Checks ``values``; raises BadInput naming the first bad field."""
        unknown = [name for name in values if name not in cls.model_fields]
        if unknown:
            pick(unknown[0], cls.model_fields, "experiment field")
        if "method" not in values:
            raise BadInput("method", "missing", "give --method NAME; `pflbench list methods` shows them")
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "experiment"
            raise BadInput(name, values.get(name, "missing"), first["msg"]) from None

    @field_serializer("dataset")
    def _plain(self, dataset: Choice) -> Any:
        """A data set that its name identifies is written as its name."""
        return dataset.model_dump() if dataset.fields or dataset.digest else dataset.name

    @property
    def address(self) -> str:
        """16 hex digits that identify a *resolved* experiment; what lies in files outside is replaced by its digest."""
        values = self.model_dump()
        values["method"]["name"] = Path(self.method.name).stem
        if self.partition.digest:
            values["partition"]["fields"] = {}
        if self.dataset.digest:
            values["dataset"]["fields"] = {}
        if self.model.digest:
            del values["model"]["fields"]["pretrained"]
        if self.augment == "none":
            del values["augment"]  # what is not augmented keeps the address it had before there was this field
        if self.cut is None:
            del values["cut"]  # what is not cut keeps the address it had before there was this field
        else:
            values["cut"]["name"] = Path(self.cut.name).stem
        return hashlib.sha256(canonical({"meaning": MEANING, "experiment": values}).encode()).hexdigest()[:16]

    @property
    def cohort_size(self) -> int:
        """Clients per round, M: participation x clients, rounded half up, at least 1."""
        return max(1, math.floor(self.participation * self.clients + 0.5))

    def evaluated(self) -> list[int]:
        """The rounds (1-based, after which) models are evaluated."""
        return [r for r in range(1, self.rounds + 1) if r % self.eval_every == 0 or r == self.rounds]


@dataclass(frozen=True)
class Machine:
    """Where and how; changes no number beyond rounding.

    threads: clients computed at a time on a CPU. chunk: most clients in one vmapped call. graphs: capture CUDA graphs on
    a GPU. deterministic: only kernels that give the same bits again. place_data, place_clients: where data and client
    states lie; auto: where there is room. checkpoint_s: seconds between checkpoints, more where one
    takes long; 0: one after every round.
    """

    device: str = "auto"
    engine: Literal["auto", "loop", "vmap"] = "auto"
    threads: int = 1
    chunk: int = 64
    graphs: bool = True
    deterministic: bool = True
    data_root: Path | None = None
    results: Path = Path("results")
    place_data: Literal["auto", "device", "host"] = "auto"
    place_clients: Literal["auto", "device", "host", "file"] = "auto"
    keep_models: bool = False
    checkpoint_s: float = 30.0


def constant(done: float) -> float:
    """The same learning rate in every round."""
    return 1.0


def cosine(done: float, *, final: Annotated[float, hyper("factor in the last round", ge=0, le=1)] = 0.0) -> float:
    """Half a cosine from 1 down to ``final`` (Loshchilov and Hutter, ICLR 2017, arXiv 1608.03983, eq. 5, no restarts)."""
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


def exponential(done: float, *, final: Annotated[float, hyper("factor in the last round", gt=0, le=1)] = 0.1) -> float:
    """Falls by the same factor every round, to ``final`` in the last."""
    return float(final**done)


def step(
    done: float,
    *,
    at: Annotated[float, hyper("share of the rounds after which the rate drops", gt=0, lt=1)] = 0.5,
    factor: Annotated[float, hyper("factor after the drop", gt=0, le=1)] = 0.1,
) -> float:
    """One drop."""
    return factor if done >= at else 1.0


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "cosine": cosine,
    "exponential": exponential,
    "step": step,
}


def decay_of(experiment: Experiment) -> Callable[[int], float]:
    """Factor on the learning rate in round 0 .. rounds - 1."""
    schedule, fields = SCHEDULES[experiment.schedule.name], experiment.schedule.fields
    last = max(1, experiment.rounds - 1)
    return lambda round: schedule(round / last, **fields)


def complete(experiment: Experiment, root: Path | None = None) -> Experiment:
    """The resolved experiment: every default written out, every name and field checked. Raises BadInput.

    root: folder of the data, needed for a data set that its content identifies unless the digest is given.
    """
    from pflbench import models, registry, resnet
    from pflbench.partitions import ALL
    from pflbench.splits import card_of
    from pflbench.timeline import draw_fleet, fleet_digest, load_fleet

    dataset = resolved_data(experiment.dataset, root)
    method = experiment.method
    fields = resolve(registry.method_class(method.name), method.fields, f"method {method.name}")
    method = Choice(name=method.name, fields=fields, digest=registry.digest(method.name))
    partition = experiment.partition
    if partition.name == "file":
        card = card_of(Path(str(partition.fields.get("path", ""))))
        partition = Choice(name="file", fields={"path": str(partition.fields["path"])}, digest=card["checksum"])
    else:
        function = ALL[pick(partition.name, [*ALL, "file"], "partition")]
        partition = Choice(
            name=partition.name, fields=resolve(function, partition.fields, f"partition {partition.name}")
        )
    model = experiment.model
    name = ("mlp" if dataset.name == "digits" else "cnn") if model.name == "auto" else model.name
    factory = models.MODELS[pick(name, [*models.MODELS, "auto"], "model")]
    fields = resolve(factory, model.fields, f"model {name}")
    weights = fields.get("pretrained")
    model = Choice(name=name, fields=fields, digest=agreed(model, resnet.digest(Path(weights)) if weights else None))
    schedule = experiment.schedule
    curve = SCHEDULES[pick(schedule.name, SCHEDULES, "schedule")]
    schedule = Choice(name=schedule.name, fields=resolve(curve, schedule.fields, f"schedule {schedule.name}"))
    cut = experiment.cut
    if cut is not None:
        digest = fleet_digest(load_fleet(cut.name))
        cut = Choice(name=cut.name, fields=resolve(draw_fleet, cut.fields, f"cut {cut.name}"), digest=digest)
    seed = experiment.seed if experiment.partition_seed is None else experiment.partition_seed
    changes = {"dataset": dataset, "method": method, "partition": partition, "model": model, "schedule": schedule}
    return experiment.model_copy(update={**changes, "partition_seed": seed, "cut": cut})


def resolved_data(dataset: Choice, root: Path | None) -> Choice:
    """The data set with all its fields, and the digest of its content unless its name says which it is."""
    fields = data.resolve(dataset.name, dataset.fields)
    if root is None and dataset.digest:
        return dataset.model_copy(update={"fields": fields})  # a plan made where the data are not
    digest = agreed(dataset, data.digest(dataset.name, fields, root))
    return Choice(name=dataset.name, fields=fields, digest=digest)


def agreed(choice: Choice, digest: str | None) -> str | None:
    """``digest``, that of the files at hand. Raises BadInput if the experiment asks for another."""
    if choice.digest not in (None, digest):
        raise BadInput(choice.name, digest, f"other files than those of the experiment, {choice.digest}")
    return digest
