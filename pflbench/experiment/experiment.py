"""What is run: an experiment and its address.

Everything that may change a number beyond rounding is a field of ``Experiment`` and is hashed into the address.
Everything else (device, engine, threads, paths) is a field of ``Machine`` and is not.
"""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_serializer

from pflbench.core.errors import BadInput
from pflbench.core.fields import Declared, canonical, parse, pick
from pflbench.data.datasets import DATASETS

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
        name, fields = DATASETS.parse(value)
        return {"name": name, "fields": fields}
    return _choice(value)


def _uncut(value: Any) -> Any:
    return None if value == "none" else value


Chosen = Annotated[Choice, BeforeValidator(_choice)]
ChosenData = Annotated[Choice, BeforeValidator(_dataset)]


class Experiment(Declared):
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
    rounds: int = Field(40, ge=1, le=1_000_000, description="communication rounds")
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
    cut: Annotated[Chosen | None, BeforeValidator(_uncut)] = Field(
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
        return self.address_under(MEANING)

    def address_under(self, meaning: int) -> str:
        """The address it has, or had, where ``MEANING`` is ``meaning``."""
        values = self.model_dump()
        for value in values.values():
            if isinstance(value, dict):
                value["name"] = Path(value["name"]).stem  # where a file lies is no number
        if self.partition.name == "file":
            values["partition"]["fields"] = {}
        if self.dataset.digest:
            values["dataset"]["fields"] = {}
        if self.model.digest:
            values["model"]["fields"].pop("pretrained", None)
        if self.augment == "none":
            del values["augment"]  # what is not augmented keeps the address it had before there was this field
        if self.cut is None:
            del values["cut"]  # what is not cut keeps the address it had before there was this field
        return hashlib.sha256(canonical({"meaning": meaning, "experiment": values}).encode()).hexdigest()[:16]

    @property
    def cohort_size(self) -> int:
        """Clients per round, M: participation x clients, rounded half up, at least 1."""
        return max(1, math.floor(self.participation * self.clients + 0.5))

    def evaluated(self) -> list[int]:
        """The rounds (1-based, after which) models are evaluated."""
        return [r for r in range(1, self.rounds + 1) if r % self.eval_every == 0 or r == self.rounds]
