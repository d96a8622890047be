"""A fleet: the devices and links of the clients, and the server, drawn from a description in a YAML file.

A fleet file holds quantities that differ between clients (with the draw they share) and plain numbers, each with the
source of its numbers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from pflbench.core.errors import BadInput
from pflbench.core.fields import canonical, hyper, pick, resolve
from pflbench.core.files import expanded
from pflbench.core.reading import read_yaml
from pflbench.core.registry import Kind, Thing
from pflbench.core.streams import stream

Floats = NDArray[np.float64]


# A fleet file: quantities that differ between clients (with the draw they share), and plain numbers.
FOLDER = files("pflbench").joinpath("clock", "fleets")
SPREADS = {"slowdown": 0, "down_mbit_per_s": 1, "up_mbit_per_s": 1, "latency_s": 2}


NUMBERS = ("contribute_s", "personalise_s", "aggregation_s", "compute_jitter", "network_jitter", "dropout")


@dataclass(frozen=True)
class Spread:
    """A quantity of one class of clients, ``median * exp(sigma * normal)``; a list of classes is a mixture."""

    median: Annotated[float, hyper("median over the clients of the class", ge=0)]
    source: Annotated[str, hyper("where the numbers come from")]
    sigma: Annotated[float, hyper("standard deviation of the logarithm", ge=0)] = 0.0
    share: Annotated[float, hyper("share of the clients that are of this class", gt=0, le=1)] = 1.0


@dataclass(frozen=True)
class Number:
    """A quantity of the whole fleet."""

    value: Annotated[float, hyper("the number", ge=0)]
    source: Annotated[str, hyper("where the number comes from")]


@dataclass(frozen=True, eq=False)
class Fleet:
    """C clients and a server. Arrays are [C]."""

    name: str
    contribute_s: Floats  # seconds per batch of the generic stage
    personalise_s: Floats  # seconds per batch of the personal stage
    down_bps: Floats  # bits per second
    up_bps: Floats  # bits per second
    latency_s: Floats  # seconds per message, on top of its bits
    aggregation_s: float  # seconds per round
    compute_jitter: float  # sigma of the logarithm of a client's compute seconds, per round
    network_jitter: float  # sigma of the logarithm of a client's transfer seconds, per round
    dropout: float  # probability that a client misses a round
    sources: Mapping[str, str]  # field of the fleet file -> where its numbers come from

    def __post_init__(self) -> None:
        for field in ("contribute_s", "personalise_s", "down_bps", "up_bps", "latency_s"):
            values, low = getattr(self, field), np.nextafter(0, 1) if field.endswith("bps") else 0
            for value in values[~((values >= low) & np.isfinite(values))]:
                raise BadInput(f"{self.name}.{field}", value, f"must be finite and {'> 0' if low else '>= 0'}")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"{self.name}.dropout", self.dropout, "must be >= 0 and < 1")


def load_fleet(name_or_path: str) -> dict[str, Any]:
    """The description of a fleet: one of the package by its name, or your own by the path of its YAML file."""
    own = "/" in name_or_path or name_or_path.endswith(FLEETS.suffixes)
    name = Path(name_or_path).stem if own else pick(name_or_path, FLEETS.own(), "fleet")
    file = expanded(Path(name_or_path)) if own else FOLDER.joinpath(f"{name}.yaml")
    content = read_yaml(file, "fleet")
    return {"name": name, **content}


def build_fleet(description: Mapping[str, Any], clients: int, rng: np.random.Generator) -> Fleet:
    """A fleet drawn from its description. Down- and uplink share a draw: a client with a good one has a good other."""
    name = str(description.get("name", "fleet"))
    for field in description:
        pick(str(field), ("name", "about", *SPREADS, *NUMBERS), f"field of fleet {name}")
    chance, normal = rng.random((3, clients)), rng.standard_normal((3, clients))
    sources: dict[str, str] = {}

    def read(field: str, kind: type[Any]) -> list[dict[str, Any]]:
        given, where, found = description.get(field, "missing"), f"{name}.{field}", []
        for one in given if isinstance(given, list) and kind is Spread else [given]:
            if not isinstance(one, Mapping):
                raise BadInput(where, one, f"needs the fields of a {kind.__name__}, source among them")
            found.append(resolve(kind, one, where))
            if not found[-1]["source"].strip():
                raise BadInput(f"{where}.source", "empty", "say where the number comes from, or 'assumption: why'")
        sources[field] = " | ".join(one["source"] for one in found)
        return found

    def draw(field: str) -> Floats:
        found, row = read(field, Spread), SPREADS[field]
        share, median, sigma = (np.array([one[key] for one in found]) for key in ("share", "median", "sigma"))
        if abs(share.sum() - 1) > 1e-6:
            raise BadInput(f"{name}.{field}.share", share.sum(), "the shares of the classes must sum to 1")
        index = np.searchsorted(share.cumsum()[:-1], chance[row], side="right")
        return np.asarray(median[index] * np.exp(sigma[index] * normal[row]))

    spread = {field: draw(field) for field in SPREADS}
    number = {field: read(field, Number)[0]["value"] for field in NUMBERS}
    seconds = {field: number.pop(field) * spread["slowdown"] for field in ("contribute_s", "personalise_s")}
    down, up = 1e6 * spread["down_mbit_per_s"], 1e6 * spread["up_mbit_per_s"]
    return Fleet(name, **seconds, down_bps=down, up_bps=up, latency_s=spread["latency_s"], **number, sources=sources)


def draw_fleet(
    description: Mapping[str, Any],
    clients: int,
    *,
    seed: Annotated[int, hyper("seed of the fleet and of its chance", ge=0)] = 0,
) -> tuple[Fleet, np.random.Generator]:
    """A fleet and the chance of its rounds. Nothing of a method is in the streams: all meet the same fleet."""
    name = str(description["name"])
    return build_fleet(description, clients, stream(seed, "fleet", name)), stream(seed, "clock", name)


def fleet_digest(description: Mapping[str, Any]) -> str:
    """16 hex digits of a fleet's numbers; what it is about and where they come from do not count."""

    def numbers(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: numbers(item) for key, item in value.items() if key not in ("name", "about", "source")}
        return [numbers(item) for item in value] if isinstance(value, list) else value

    return sha256(canonical(numbers(description)).encode()).hexdigest()[:16]


class _Fleets(Kind):
    """A fleet is a file, not code: it is always identified by its numbers."""

    suffixes = (".yaml", ".yml")

    def own(self) -> Iterable[str]:
        return sorted(each.name.removesuffix(".yaml") for each in FOLDER.iterdir() if each.name.endswith(".yaml"))

    def names(self) -> list[str]:
        return list(self.own())

    def find(self, name: str) -> Thing:
        description = load_fleet(name)
        return Thing(name, draw_fleet, None, fleet_digest(description), description)

    def maker(self, thing: Thing) -> Callable[..., Any]:
        """Called with a number of clients, it draws the fleet and the chance of its rounds."""
        return partial(draw_fleet, thing.content)

    def text(self, name: str) -> str:
        """The fleet in full: what it is, then every number with its source."""
        description = load_fleet(name)
        lines = [str(description["about"])]
        for field in (*SPREADS, *NUMBERS):
            given = description[field]
            for one in given if isinstance(given, list) else [given]:
                numbers = ", ".join(f"{key} {value:g}" for key, value in one.items() if key != "source")
                lines += ["", f"{field}: {numbers}", f"    {one['source']}"]
        return "\n".join(lines)


FLEETS = _Fleets("fleet")
