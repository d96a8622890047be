"""The finished runs that a figure gets: exactly those of its manifest, asked for by field. Never imports torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pflbench.core.errors import BadInput
from pflbench.core.measures import Record
from pflbench.core.reading import clean, read_json
from pflbench.experiment import store
from pflbench.study.grid import ENDINGS, FIGURES, Extra, checked, out_folder, place


@dataclass(frozen=True)
class Run:
    """A finished run in its place in a figure."""

    label: str
    setting: str
    record: Record
    path: Path

    @property
    def seed(self) -> int:
        return int(self.record["experiment"]["seed"])

    @property
    def address(self) -> str:
        return str(self.record["address"])

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The experiment as flat names: ``dataset``, ``method``, ``method.tau``, and the figure's label and setting."""
        flat: dict[str, Any] = {"label": self.label, "setting": self.setting}
        for name, value in self.record["experiment"].items():
            if isinstance(value, dict):
                flat[name] = value["name"]
                flat |= {f"{name}.{key}": item for key, item in value["fields"].items()}
            else:
                flat[name] = value
        return flat

    def extra(self, kind: Extra) -> Path:
        """A file derived from this run. Raises BadInput if it is missing."""
        path = self.path.with_suffix(ENDINGS[kind])
        if not path.exists():
            raise BadInput("result", path, f"no {kind} of this run; run the figure's grid first")
        return path


class Entry(BaseModel):
    """One run of a manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    label: str
    setting: str
    seed: int
    method: str
    address: str = Field(pattern=r"^[0-9a-f]{16}$")


class Manifest(BaseModel):
    """What ``runs.json`` holds: see ``study.workload``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    figure: str
    scale: str
    about: str = ""
    seeds: int = Field(ge=1)
    title: str
    category: str
    caption: str
    settings: dict[str, str]
    titles: dict[str, str]
    left_out: dict[str, list[str]] = {}
    runs: list[Entry] = Field(min_length=1)


@dataclass(frozen=True)
class Study:
    """All that a figure may draw."""

    figure: str
    scale: str
    title: str
    category: str
    caption: str
    seeds: int
    settings: Mapping[str, str]  # name -> title
    titles: Mapping[str, str]  # label -> title, where it has one
    runs: tuple[Run, ...]
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)  # rows and settings of the whole figure

    @property
    def labels(self) -> list[str]:
        """In the order of the grid."""
        return list(dict.fromkeys(run.label for run in self.runs))

    def values(self, field: str, **asked: Any) -> list[Any]:
        """The values of ``field`` among the runs asked for, sorted."""
        return sorted({run.fields[field] for run in self.runs if _matches(run, asked)})

    def points(self, fields: Sequence[str], **asked: Any) -> list[tuple[Any, ...]]:
        """The combinations of values of ``fields`` among the runs asked for, sorted."""
        return sorted({tuple(run.fields[field] for field in fields) for run in self.runs if _matches(run, asked)})

    def collect(self, **asked: Any) -> list[Run]:
        """One run per seed, in the order of the seeds; see ``collect``."""
        return collect(self.runs, range(self.seeds), **asked)


def load(figure: str, scale: str, results: Path, root: Path = FIGURES) -> Study:
    """A figure's manifest and every record in it. Raises BadInput if one is missing or corrupt."""
    path = out_folder(figure, scale, root) / "runs.json"
    if not path.exists():
        raise BadInput(
            "figure", f"{figure} at scale {scale}", "has no runs.json; `pflbench grid` writes it and runs it"
        )
    held = clean(read_json(path, "figure", f"`pflbench grid {figure} --scale {scale}` writes it again"))
    manifest, found = checked(Manifest, held, f"{path}"), []
    for entry in manifest.runs:
        file = place(results, entry.method, entry.address)
        if not file.exists():
            own = ", ".join(f"{name} {getattr(entry, name)}" for name in ("label", "setting", "seed", "address"))
            raise BadInput(
                f"figure {figure}", own, "this run is missing; a figure is drawn from all of its runs or not"
            )
        found.append(Run(entry.label, entry.setting, store.load(file), file))
    heads = {name: getattr(manifest, name) for name in Study.__dataclass_fields__ if name != "runs"}
    return Study(**heads, runs=tuple(found))


def collect(found: Sequence[Run], seeds: Sequence[int], /, **asked: Any) -> list[Run]:
    """The runs whose fields are as asked, one per seed, in the order of ``seeds``.

    Raises BadInput if a seed is missing or doubled, or if they differ in a field that was not asked for.
    """
    chosen = [run for run in found if _matches(run, asked)]
    what = ", ".join(f"{name}={value}" for name, value in asked.items())
    differing = _differences(chosen)
    if differing:
        raise BadInput("figure asks for", what, f"the runs differ in {differing}, which it does not mention")
    for seed in seeds:
        count = sum(run.seed == seed for run in chosen)
        if count != 1:
            raise BadInput("figure asks for", what, f"{count} runs with seed {seed}, needs exactly one")
    if len(chosen) != len(seeds):
        raise BadInput("figure asks for", what, f"{len(chosen)} runs for {len(seeds)} seeds")
    return sorted(chosen, key=lambda run: list(seeds).index(run.seed))


def _matches(run: Run, asked: Mapping[str, Any]) -> bool:
    fields = run.fields
    return all(name in fields and fields[name] == value for name, value in asked.items())


def _differences(chosen: Sequence[Run]) -> str:
    """The fields, seeds aside, in which runs differ, with their values."""
    tables = [run.fields for run in chosen]
    fields = sorted({name for table in tables for name in table} - {"seed", "partition_seed"})
    told = {name: list(dict.fromkeys(str(table.get(name)) for table in tables)) for name in fields}
    return "; ".join(f"{name} ({', '.join(values)})" for name, values in told.items() if len(values) > 1)
