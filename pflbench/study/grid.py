"""Which experiments a figure needs. Never imports torch until something is resolved.

``paper_figures/scales.yaml`` says how large the study is (base fields, settings, seeds); ``paper_figures/<figure>/
grid.yaml`` names the rows of one figure: a method, its fields and the fields of the experiment, where a list stands for
each of its values. Rows x settings x seeds are the figure's runs. The same experiment has the same address, so figures
share it. ``out/<scale>/runs.json``, the manifest, ties a figure to its addresses; a figure reads nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pflbench.core.errors import BadInput
from pflbench.core.fields import Declared, pick
from pflbench.core.reading import read_yaml
from pflbench.experiment import store
from pflbench.experiment.experiment import Experiment

FIGURES = Path("paper_figures")
Extra = Literal["bands", "split"]  # what is derived from a run and kept beside its result: see ``study.derive``
Model = TypeVar("Model", bound=BaseModel)
ENDINGS: dict[Extra, str] = {"bands": ".bands.csv", "split": ".split.npz"}


class _File(Declared, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Setting(_File):
    """Data and split, by the name of experiment fields. file: a YAML file of them, below the figures; base: over it."""

    title: str
    file: Path | None = None
    base: dict[str, Any] = {}


class Scale(_File):
    """One size of the study. seeds: 0, 1, ... so many. batch: runs per process. short: over base, in short figures;
    short_seeds: how many they have, if fewer.
    """

    about: str
    seeds: int = Field(ge=1)
    short_seeds: int | None = Field(None, ge=1)
    batch: int = Field(1, ge=1)
    base: dict[str, Any] = {}
    short: dict[str, Any] = {}
    settings: dict[str, Setting] = Field(min_length=1)


class Row(_File):
    """Experiments under one label. fields: of the method; base: of the experiment; a list: each of its values. always:
    a reference that stays as long as the figure has any other row, whatever methods are asked for.
    """

    always: bool = False
    title: str | None = None
    method: str
    fields: dict[str, Any] = {}
    base: dict[str, Any] = {}
    extras: list[Extra] = []


class Grid(_File):
    """A figure. short: an ablation of many runs, each as short as the scale says. subject: the method without which
    there is no figure, when only some methods are asked for.
    """

    title: str
    category: str
    caption: str
    settings: Literal["all", "first"] | list[str] = "all"
    short: bool = False
    subject: str | None = None
    base: dict[str, Any] = {}
    extras: list[Extra] = []
    rows: dict[str, Row] = Field(min_length=1)


@dataclass(frozen=True)
class Cell:
    """One run that a figure asks for, before defaults are written out."""

    label: str
    setting: str
    experiment: Experiment
    extras: tuple[Extra, ...]


def place(results: Path, method: str, address: str) -> Path:
    """Where a result is, or will be: in ``results``, or committed below ``results/reference``."""
    own = store.result_path(results, method, address)
    kept = store.result_path(results / "reference", method, address)
    return kept if kept.exists() and not own.exists() else own


def names(root: Path = FIGURES) -> list[str]:
    """The figures: every folder with a grid.yaml."""
    return sorted(path.parent.name for path in root.glob("*/grid.yaml"))


def read_scale(name: str, root: Path = FIGURES) -> Scale:
    scales = read_yaml(root / "scales.yaml")
    return checked(Scale, scales[pick(name, scales, "scale")], f"scale {name}")


def read_grid(figure: str, root: Path = FIGURES) -> Grid:
    path = root / pick(figure, names(root), "figure") / "grid.yaml"
    return checked(Grid, read_yaml(path), f"grid of {figure}")


@dataclass(frozen=True)
class Narrow:
    """Which part of a study: how many seeds (None: the scale's), which methods and settings (None: all)."""

    seeds: int | None = None
    methods: Sequence[str] | None = None
    settings: Sequence[str] | None = None


WHOLE = Narrow()


def cells(figure: str, scale: str, narrow: Narrow = WHOLE, root: Path = FIGURES) -> list[Cell]:
    """Everything that ``figure`` asks for. Raises BadInput for anything unusable."""
    grid, size = read_grid(figure, root), read_scale(scale, root)
    chosen = settings_of(figure, grid, size, narrow)
    if narrow.methods is not None and grid.subject not in (None, *narrow.methods):
        return []
    asked_for = {label for label, row in grid.rows.items() if narrow.methods is None or row.method in narrow.methods}
    found = []
    for label, row in grid.rows.items():
        if label not in asked_for and not (row.always and asked_for):
            continue
        extras = tuple(sorted({*grid.extras, *row.extras}))
        for setting in chosen:
            own, short = size.settings[setting], size.short if grid.short else {}
            file = read_yaml(root / own.file) if own.file else {}
            base = {**size.base, **file, **own.base, **short, **grid.base, **row.base}
            for fields, rest in product(_each(row.fields), _each(base)):
                for seed in range(seeds_of(grid, size, narrow)):
                    method = {"name": row.method, "fields": fields}
                    experiment = Experiment.of({**rest, "method": method, "seed": seed})
                    found.append(Cell(label, setting, experiment, extras))
    return found


def runs(
    figure: str, scale: str, narrow: Narrow = WHOLE, root: Path = FIGURES, data: Path | None = None
) -> list[Experiment]:
    """The experiments of ``figure`` at ``scale``, with every default written out. data: folder of the data."""
    from pflbench.experiment.resolve import resolve

    return [resolve(cell.experiment, data).experiment for cell in cells(figure, scale, narrow, root)]


def settings_of(figure: str, grid: Grid, size: Scale, narrow: Narrow) -> list[str]:
    """The settings that a figure shows, of those that are kept."""
    kept = [pick(name, size.settings, "setting") for name in narrow.settings or size.settings]
    if isinstance(grid.settings, list):
        asked = [pick(name, size.settings, f"setting of {figure}") for name in grid.settings]
        return [name for name in asked if name in kept]
    return kept if grid.settings == "all" else kept[:1]


def seeds_of(grid: Grid, size: Scale, narrow: Narrow) -> int:
    return narrow.seeds or (grid.short and size.short_seeds) or size.seeds


def out_folder(figure: str, scale: str, root: Path = FIGURES) -> Path:
    return root / figure / "out" / scale


def _each(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the lists among ``values``."""
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    for point in product(*lists):
        yield dict(zip(values, point, strict=True))


def checked(model: type[Model], values: Any, where: str) -> Model:
    """``values`` as a ``model``. Raises BadInput naming the first bad field."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(".".join([where, *map(str, first["loc"])]), first.get("input"), first["msg"]) from None
