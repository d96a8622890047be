"""From finished runs to files: a figure is a table of what is drawn, and a drawing of that table and nothing else.

``paper_figures/<figure>/figure.py`` defines ``table(study)``, a data frame in which every row names its ``runs``, and
any of ``plot(frame)``, a matplotlib figure, and ``latex(frame)``, a table. The frame is written as CSV and read back
before it is drawn, so that the CSV holds exactly what is drawn.
"""

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from pflbench.core import files, measures
from pflbench.core.errors import BadInput
from pflbench.report import finished, stats, style
from pflbench.report.finished import Run
from pflbench.report.stats import Floats
from pflbench.study import grid
from pflbench.study.grid import FIGURES


def produce(figure: str, scale: str, results: Path, root: Path = FIGURES) -> list[Path]:
    """Draws one figure from its runs. Returns the files. Raises BadInput if a run is missing."""
    study, module = finished.load(figure, scale, results, root), load_module(root / figure / "figure.py")
    folder = grid.out_folder(figure, scale, root)
    made = [folder / f"{figure}.csv"]
    write_csv(module.table(study), made[0])
    frame = read_csv(made[0])
    if hasattr(module, "plot"):
        made += style.save(module.plot, frame, folder / figure)
    if hasattr(module, "latex"):
        made.append(folder / f"{figure}.tex")
        made[-1].write_text(module.latex(frame), encoding="utf-8")
    return made


def load_module(path: Path) -> ModuleType:
    """A figure's own module. Raises BadInput if there is none."""
    if not path.is_file():
        raise BadInput("figure", path, "has no figure.py")
    spec = importlib.util.spec_from_file_location(f"pflbench_figure_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Whole or not at all. Raises BadInput for a frame without rows, or rows that name no runs."""
    if frame.empty or "runs" not in frame or not frame["runs"].str.len().all():
        raise BadInput("figure", path.stem, "its table needs rows, and every row the runs behind it")
    files.publish(path, lambda draft: frame.to_csv(draft, index=False))


def read_csv(path: Path) -> pd.DataFrame:
    """Bit for bit what was written; an empty cell is NaN, a word is never."""
    return pd.read_csv(path, float_precision="round_trip", keep_default_na=False, na_values=[""])


# What tables are made of


def accuracy(run: Run, model: str) -> float | None:
    """Accuracy after the last round: "GM" on the official test set, "PM" micro over all clients; None: no such model."""
    curve = curve_of(run, model)
    return None if curve is None else float(curve[-1])


def curve_of(run: Run, model: str) -> Floats | None:
    """[evaluations]"""
    if model == "GM":
        return measures.generic_curve(run.record)
    return measures.local_curve(run.record, "personal")


def estimate(runs: Sequence[Run], values: Iterable[float]) -> dict[str, Any]:
    """Mean over seeds with a 95 % t interval (none at one seed), and the runs behind it. values: one per run.

    diverged: how many of them did, as in "2/5"; not there if none did.
    """
    each, behind = np.array(list(values), dtype=float), {run.address: run for run in runs}
    known: dict[str, Any] = {"seeds": len(each), "runs": " ".join(behind)}
    lost = sum(run.record["diverged"] is not None for run in behind.values())
    if lost:
        known["diverged"] = f"{lost}/{len(behind)}"
    if len(each) < 2:
        return {"mean": each.mean(), "low": np.nan, "high": np.nan, **known}
    interval = stats.seed_interval(each)
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, **known}


def accuracy_rows(runs: Sequence[Run], head: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per model that the method has: its accuracy over seeds."""
    rows = []
    for model in ("GM", "PM"):
        values = [accuracy(run, model) for run in runs]
        known = [value for value in values if value is not None]
        if known:
            rows.append({**head, "model": model, **estimate(runs, known)})
    return rows


def difference_rows(runs: Sequence[Run], base: Sequence[Run], head: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per model: accuracy over seeds minus that of ``base``, paired by seed; and ``accuracy`` itself."""
    rows = []
    for model in ("GM", "PM"):
        pairs = [(accuracy(run, model), accuracy(other, model)) for run, other in zip(runs, base, strict=True)]
        known = [(mine, theirs) for mine, theirs in pairs if mine is not None and theirs is not None]
        if known:
            row = estimate([*runs, *base], [mine - theirs for mine, theirs in known])
            rows.append({**head, "model": model, "accuracy": np.mean([mine for mine, _ in known]), **row})
    return rows
