"""One HTML page that needs no network: verdicts, tables that sort, figures, and every run behind every number."""

import ast
import base64
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pflbench import __version__
from pflbench.core import files
from pflbench.core.errors import BadInput
from pflbench.report import finished, style
from pflbench.report.claims import Finding, Judgement, frame_of, judge_all
from pflbench.report.figures import accuracy, read_csv, write_csv
from pflbench.report.finished import Run, Study
from pflbench.study import grid
from pflbench.study.grid import FIGURES

ORDER = ("Accuracy", "Ablations", "Spectra", "Wait-free", "Clients", "Setup")
MINUS = "\N{MINUS SIGN}"
UNITS = {"GM": "percentage points", "PM": "percentage points", "gain": "times as fast", "bands": "doublings"}
SIGNS = {"supported": "●", "not supported": "✕", "inconclusive": "○"}


def write(path: Path, scale: str, results: Path, figures: Sequence[str] | None = None, root: Path = FIGURES) -> None:
    """The page of every figure that has been drawn at ``scale``, or of ``figures``; and ``claims.csv`` beside it.

    Raises BadInput if a figure or a run is missing.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    drawn = [name for name in grid.names(root) if (grid.out_folder(name, scale, root) / f"{name}.csv").exists()]
    names = list(figures or drawn)
    if not names:
        raise BadInput("scale", scale, "has no figure yet; `pflbench figure` draws them")
    studies = sorted((finished.load(name, scale, results, root) for name in names), key=_rank)
    runs = {run.address: run for study in studies for run in study.runs}
    judgements = judge_all(scale, results, names, root)
    contrasts = frame_of(judgements)
    if len(contrasts):
        write_csv(contrasts, path.with_name("claims.csv"))
    page = Environment(
        loader=PackageLoader("pflbench.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page.filters |= {"percent": style.percent, "number": _number, "points": _points}
    text = page.get_template("report.html").render(
        scale=scale,
        about=grid.read_scale(scale, root).about,
        version=__version__,
        facts=_facts(list(runs.values()), studies),
        judgements=[_verdict(each) for each in judgements],
        accuracy=_accuracy_table(root, scale) if "accuracy" in names else None,
        figures=sorted([*map(partial(_figure, root=root), studies), *_without_runs(root)], key=_category),
        runs=[_run(run, studies) for run in sorted(runs.values(), key=_place)],
        seeds={run.address: run.seed for run in runs.values()},
    )
    files.publish(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def _rank(study: Study) -> tuple[int, str]:
    return _category(vars(study)), study.figure


def _category(figure: Mapping[str, Any]) -> int:
    name = figure["category"]
    return ORDER.index(name) if name in ORDER else len(ORDER)


def _place(run: Run) -> tuple[str, str, int, str]:
    return run.fields["method"], run.setting, run.seed, run.address


def _facts(runs: Sequence[Run], studies: Sequence[Study]) -> dict[str, str]:
    made = [run.record["provenance"] for run in runs]

    def told(name: str) -> str:
        return ", ".join(sorted({str(each[name] or "unknown") for each in made}))

    packages = {f"{name} {number}" for each in made for name, number in each["packages"].items()}
    left = {name for study in studies for kind in study.left_out.values() for name in kind}
    return {
        **({"narrowed": f"without {', '.join(sorted(left))}"} if left else {}),
        "runs": str(len(runs)),
        "seeds": " to ".join(str(seeds) for seeds in sorted({study.seeds for study in studies})),
        "computing time": f"{sum(each['seconds'] for each in made) / 60:.1f} minutes on one core or GPU",
        "devices": told("device"),
        "commits": ", ".join(sorted({_commit(each["commit"]) for each in made})),
        "last run finished": max(each["finished"] for each in made),
        "packages": ", ".join(sorted(packages)),
    }


def _commit(name: str | None) -> str:
    """Ten digits and whether the tree had changes."""
    return "unknown" if name is None else name[:10] + (" with changes" if name.endswith("+") else "")


def _verdict(judgement: Judgement) -> dict[str, Any]:
    unit = _points if set(judgement.claim.measures) <= {"GM", "PM"} else _number
    rows = [_finding(each, unit) for each in sorted(judgement.findings, key=lambda each: each.interval.mean)]
    return {
        "id": judgement.id,
        "text": judgement.claim.text,
        "verdict": judgement.verdict,
        "sign": SIGNS[judgement.verdict],
        "seeds": judgement.seeds,
        "note": judgement.note,
        "rows": rows,
        "needs": unit(judgement.claim.threshold),
        "figure": judgement.claim.figure,
        "reported": judgement.claim.reported,
        "failing": len(judgement.failing),
        "unit": UNITS[judgement.claim.measures[0]],
    }


def _finding(each: Finding, unit: Any) -> dict[str, Any]:
    inside, boot = each.interval, each.bootstrap
    return {
        "setting": each.setting,
        "measure": each.measure,
        "a": _title(each.a),
        "b": _title(each.b),
        "mean": unit(inside.mean),
        "low": unit(inside.low),
        "high": unit(inside.high),
        "bootstrap": f"{unit(boot.low)} to {unit(boot.high)}" if boot else "",
        "p": "" if each.p is None else f"{each.p:.3f}",
        "effect": "" if each.effect is None else f"{each.effect.g_z:.2f}".replace("-", MINUS),
        "verdict": each.verdict,
        "sign": SIGNS[each.verdict],
        "runs": each.runs,
    }


def _title(name: str) -> str:
    """A method's title, or a row's own name."""
    return style.METHODS[name].title if name in style.METHODS else name


def _accuracy_table(root: Path, scale: str) -> dict[str, Any]:
    """The wide table: a row per method, a pair of columns per setting."""
    frame = read_csv(grid.out_folder("accuracy", scale, root) / "accuracy.csv")
    settings = style.ordered(frame, "setting")
    titles = {each: frame[frame["setting"] == each]["title"].iloc[0] for each in settings}
    rows = []
    for method in style.ordered(frame, "method"):
        own = frame[frame["method"] == method]
        cells = []
        for setting in settings:
            for model in style.MODELS:
                found = own[(own["setting"] == setting) & (own["model"] == model)].to_dict("records")
                cells.append(found[0] if found else None)
        ranks = [own[own["model"] == model]["rank"].dropna() for model in style.MODELS]
        rows.append(
            {
                "method": style.look(method).title,
                "cells": cells,
                "ranks": [r.iloc[0] if len(r) else None for r in ranks],
            }
        )
    return {"settings": list(titles.values()), "rows": rows, "models": list(style.MODELS)}


def _figure(study: Study, root: Path) -> dict[str, Any]:
    folder = grid.out_folder(study.figure, study.scale, root)
    frame = read_csv(folder / f"{study.figure}.csv")
    known = {run.address for run in study.runs}
    if not {address for cell in frame["runs"] for address in cell.split()} <= known:
        again = f"`pflbench figure {study.figure} --scale {study.scale}` draws it again"
        raise BadInput(f"figure {study.figure}", study.scale, f"was drawn from other runs; {again}")
    shown = [name for name in frame.columns if name not in ("runs", "order")]
    return {
        "name": study.figure,
        "title": study.title,
        "category": study.category,
        "caption": study.caption,
        "image": _image(folder, study.figure),
        "columns": shown,
        "rows": [
            {"cells": [_cell(row[name]) for name in shown], "runs": row["runs"].split()} for row in _records(frame)
        ],
    }


def _image(folder: Path, name: str) -> str | None:
    """A drawing as a link that holds it: as SVG, or as PNG where thousands of points make that the smaller file."""
    kinds = {"svg+xml": folder / f"{name}.svg", "png": folder / f"{name}.png"}
    found = [(path.stat().st_size, kind, path) for kind, path in kinds.items() if path.exists()]
    if not found:
        return None
    _, kind, path = min(found)
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _without_runs(root: Path) -> list[dict[str, Any]]:
    """Figures that need no run: a folder with a drawing but no grid; its module's TITLE and CAPTION, which are read only."""
    found = []
    for module in sorted(root.glob("*/figure.py")):
        name = module.parent.name
        image = _image(module.parent / "out", name)
        if image and not (module.parent / "grid.yaml").exists():
            told = {
                line.targets[0].id: ast.literal_eval(line.value)
                for line in ast.parse(module.read_text(encoding="utf-8")).body
                if isinstance(line, ast.Assign)
                and isinstance(line.targets[0], ast.Name)
                and line.targets[0].id in ("TITLE", "CAPTION")
            }
            known = {"name": name, "title": told["TITLE"], "category": "Wait-free", "caption": told["CAPTION"]}
            found.append({**known, "image": image, "columns": [], "rows": []})
    return found


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _cell(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else _number(float(value))
    return str(value)


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", MINUS)


def _points(value: float) -> str:
    """A difference of accuracies in percentage points."""
    return f"{100 * value:+.2f}".replace("-", MINUS) if value else "0"


def _run(run: Run, studies: Sequence[Study]) -> dict[str, Any]:
    record = run.record
    fields = ", ".join(f"{name}={value}" for name, value in record["experiment"]["method"]["fields"].items())
    used = [study.figure for study in studies if any(each.address == run.address for each in study.runs)]
    scores = {model: accuracy(run, model) for model in style.MODELS}
    return {
        "address": run.address,
        "method": _title(run.fields["method"]),
        "fields": fields,
        "seed": run.seed,
        "dataset": run.fields["dataset"],
        "partition": run.fields["partition"],
        "rounds": record["rounds"],
        **{model: "" if score is None else style.percent(score) for model, score in scores.items()},
        "diverged": record["diverged"],
        "seconds": f"{record['provenance']['seconds']:.1f}",
        "figures": ", ".join(used),
        "details": json.dumps({name: record[name] for name in ("experiment", "provenance")}, indent=1),
    }
