"""What a study at one scale has to run: every experiment that a figure needs, each once, and the figures' manifests."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

from pflbench.core.errors import BadInput
from pflbench.core.fields import canonical
from pflbench.core.measures import Record
from pflbench.experiment import store
from pflbench.experiment.code import changed
from pflbench.experiment.experiment import Experiment
from pflbench.study.grid import (
    ENDINGS,
    FIGURES,
    WHOLE,
    Extra,
    Narrow,
    cells,
    names,
    out_folder,
    place,
    read_grid,
    read_scale,
    seeds_of,
    settings_of,
)


@dataclass(frozen=True)
class Needed:
    """One run that the study needs, resolved; ``figures`` share it."""

    experiment: Experiment
    extras: tuple[Extra, ...]
    figures: tuple[str, ...]

    @property
    def address(self) -> str:
        return self.experiment.address

    def path(self, results: Path) -> Path:
        return place(results, self.experiment.method.name, self.address)

    def files(self, results: Path) -> list[Path]:
        """The result and what is derived from it."""
        path = self.path(results)
        return [path, *(path.with_suffix(ENDINGS[extra]) for extra in self.extras)]

    def fresh(self, results: Path) -> bool:
        """Whether the result is there, whole, and made by the present code where that is known."""
        path = self.path(results)
        try:
            return path.exists() and not changed(store.load(path))
        except BadInput:
            return False

    def done(self, results: Path) -> bool:
        return all(file.exists() for file in self.files(results)) and self.fresh(results)


@dataclass(frozen=True)
class Workload:
    """The study at one scale: what every figure needs, each run once, in an order that depends on nothing else."""

    scale: str
    batch: int
    manifests: Mapping[str, Record]  # figure -> what ``runs.json`` holds
    needed: tuple[Needed, ...]

    @classmethod
    def of(
        cls,
        scale: str,
        figures: Sequence[str] | None = None,
        narrow: Narrow = WHOLE,
        root: Path = FIGURES,
        data: Path | None = None,
    ) -> Self:
        """Raises BadInput if nothing is left to run."""
        from pflbench.experiment.resolve import resolve

        size, manifests = read_scale(scale, root), {}
        wanted: dict[str, tuple[Experiment, set[Extra], list[str]]] = {}
        for figure in figures or names(root):
            grid, entries = read_grid(figure, root), []
            for cell in cells(figure, scale, narrow, root):
                experiment = resolve(cell.experiment, data).experiment
                _, extras, users = wanted.setdefault(experiment.address, (experiment, set(), []))
                extras.update(cell.extras)
                users += [figure] if figure not in users else []
                own = {"label": cell.label, "setting": cell.setting, "seed": experiment.seed}
                entries.append({**own, "method": experiment.method.name, "address": experiment.address})
            if entries:
                used = {entry["setting"] for entry in entries}
                told = {entry["label"] for entry in entries}
                manifests[figure] = {
                    "figure": figure,
                    "scale": scale,
                    "about": size.about,
                    "seeds": seeds_of(grid, size, narrow),
                    "title": grid.title,
                    "category": grid.category,
                    "caption": " ".join(grid.caption.split()),
                    "settings": {name: value.title for name, value in size.settings.items() if name in used},
                    "titles": {label: row.title for label, row in grid.rows.items() if row.title},
                    "left_out": {  # by narrowing
                        "rows": [label for label in grid.rows if label not in told],
                        "settings": [name for name in settings_of(figure, grid, size, WHOLE) if name not in used],
                    },
                    "runs": entries,
                }
        if not wanted:
            raise BadInput("methods", ",".join(narrow.methods or []), "leave no run in any figure")
        ordered = sorted(wanted.items(), key=lambda item: (item[1][0].rounds, item[1][0].method.name, item[0]))
        needed = [Needed(each, tuple(sorted(extras)), tuple(users)) for _, (each, extras, users) in ordered]
        return cls(scale, size.batch, manifests, tuple(needed))

    @property
    def parts(self) -> int:
        return -(-len(self.needed) // self.batch)

    def part(self, number: int) -> tuple[Needed, ...]:
        """Runs of the part ``number`` (0 is the first): every so-manieth, so that parts take about as long."""
        return self.needed[number :: self.parts]

    def parts_of(self, figure: str) -> list[int]:
        """The parts that hold a run of ``figure``."""
        return [n for n in range(self.parts) if any(figure in each.figures for each in self.part(n))]

    @property
    def key(self) -> str:
        """Identifies the runs and their split into parts."""
        return sha256(canonical([[each.address, each.extras] for each in self.needed]).encode()).hexdigest()[:8]

    def write(self, root: Path = FIGURES) -> None:
        """The manifests; one that has not changed is not touched."""
        for figure, manifest in self.manifests.items():
            path, text = out_folder(figure, self.scale, root) / "runs.json", json.dumps(manifest, indent=1) + "\n"
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
