"""What a stored result holds: the one declaration that every reader relies on, and its seal. Never imports torch.

A record carries two checksums: ``seal`` over everything but the provenance, so that it is the same on every machine, and
``provenance.seal`` over that and the provenance. Results made before there were seals have neither; they are read, and
said to be unsealed.
"""

from hashlib import sha256
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pflbench.core.errors import BadInput
from pflbench.core.fields import canonical
from pflbench.core.measures import Record
from pflbench.experiment.experiment import Experiment

Count = Annotated[int, Field(ge=0, le=2**53)]
Rows = list[list[Count]]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Clients(_Part):
    """Samples per client; validation is empty if none is held out. official: of the test set."""

    train: list[Count]
    test: list[Count]
    validation: list[Count]
    official: Count = Field(ge=1)


class Costs(_Part):
    """Batches per round and member of the cohort; numbers per message."""

    contribute: Rows
    personalise: Rows
    up: Count
    down: Count
    bytes_per_number: Count


class Curve(_Part):
    """Correct predictions per evaluation (and client); None where a method has no such model."""

    rounds: list[Count]
    official: list[Count] | None
    generic: Rows | None
    personal: Rows | None
    generic_validation: Rows | None
    personal_validation: Rows | None


class Provenance(_Part):
    """version, code (file -> hash, see ``code``) and seal: since results carry them."""

    seconds: float = Field(ge=0)
    finished: str
    version: str | None = None
    commit: str | None
    code: dict[str, str] | None = None
    device: str
    engine: str
    channels_last: bool = False
    graphs: bool
    chunk: int = Field(ge=1)
    threads: int
    deterministic: bool
    python: str
    packages: dict[str, str]
    data: str
    memory: list[str]
    seal: Hash | None = None


class Stored(_Part):
    """A whole record."""

    address: str
    meaning: int
    experiment: dict[str, Any]
    rounds: int
    diverged: int | None
    clients: Clients
    cohorts: Rows
    costs: Costs
    curve: Curve
    fingerprint: str
    provenance: Provenance
    seal: Hash | None = None


def sealed(record: Record) -> Record:
    """``record`` with its two checksums."""
    whole = {name: value for name, value in record.items() if name != "seal"}
    own = {name: value for name, value in record["provenance"].items() if name != "seal"}
    seal = sha256(canonical({**whole, "provenance": None}).encode()).hexdigest()
    signed = sha256(canonical([seal, own]).encode()).hexdigest()
    return {**whole, "provenance": {**own, "seal": signed}, "seal": seal}


def unsealed(record: Record) -> bool:
    """Whether a record was made before results carried a checksum."""
    return "seal" not in record


def check(record: Any) -> Record:
    """``record`` if every part of it is what is declared above and fits the others. Raises ValueError: what is wrong."""
    try:
        Stored.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from None
    assert isinstance(record, dict)
    if "seal" in record or {"seal", "version", "code"} & record["provenance"].keys():
        again = sealed(record)
        if (again["seal"], again["provenance"]["seal"]) != (record.get("seal"), record["provenance"].get("seal")):
            raise ValueError("its checksum differs: it was changed after it was written")
    try:
        experiment = Experiment.of(record["experiment"])
    except BadInput as error:
        raise ValueError(f"experiment: {error}") from None
    if experiment.model_dump() != record["experiment"]:
        raise ValueError("experiment: must be written out in full")
    found = experiment.address_under(record["meaning"])
    if found != record["address"]:
        raise ValueError(f"its experiment has the address {found}, not {record['address']}: it was changed")
    for holds, what in _fits(record, experiment):
        if not holds:
            raise ValueError(f"{what} does not fit the experiment")
    return record


def _fits(record: Record, experiment: Experiment) -> list[tuple[bool, str]]:
    """Whether lengths and counts fit each other, and where they would not."""
    sizes, costs, curve, count = record["clients"], record["costs"], record["curve"], experiment.clients
    shape = [len(cohort) for cohort in record["cohorts"]]
    checks = [
        (record["rounds"] == experiment.rounds == len(shape), "rounds"),
        (curve["rounds"] == experiment.evaluated(), "curve.rounds"),
        (record["diverged"] in (None, *curve["rounds"]), "diverged"),
        (len(sizes["train"]) == len(sizes["test"]) == count, "clients"),
        (sum(sizes["test"]) > 0, "clients.test"),
        (len(sizes["validation"]) in ((count,) if experiment.validation else (0, count)), "clients.validation"),
        (all(client < count for cohort in record["cohorts"] for client in cohort), "cohorts"),
        *(([len(row) for row in costs[stage]] == shape, f"costs.{stage}") for stage in ("contribute", "personalise")),
    ]
    for name, rows in curve.items():
        if name == "rounds" or rows is None:
            continue
        most = sizes["official"] if name == "official" else sizes["validation" if "validation" in name else "test"]
        fits = len(rows) == len(curve["rounds"])
        if name == "official":
            fits = fits and all(row <= most for row in rows)
        else:
            fits = fits and all(len(row) == count for row in rows) and len(most) == count
            fits = fits and all(n <= size for row in rows for n, size in zip(row, most, strict=True))
        checks.append((fits, f"curve.{name}"))
    return checks
