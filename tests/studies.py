"""A small study with synthetic runs, for the tests of what runs studies and of what reads them."""

from hashlib import sha256
from pathlib import Path

from pflbench.experiment.experiment import MEANING, Experiment
from pflbench.experiment.record import sealed
from pflbench.report import claims, figures
from pflbench.report.finished import Run, Study

ROOT = Path(__file__).parent.parent

FIGURES = ROOT / "paper_figures"

SCALES = """
tiny:
  about: a test
  seeds: 3
  batch: 4
  base: {clients: 4, rounds: 2, epochs: 1, participation: 0.5}
  settings:
    even: {title: Even, base: {partition: iid}}
    skewed: {title: Skewed, base: {partition: "dirichlet:alpha=0.5"}}
"""

ONE = """
title: One
category: Accuracy
caption: A caption.
rows:
  fedavg: {method: fedavg}
  ditto: {method: ditto, fields: {lam: [0.5, 1]}}
"""

TWO = """
title: Two
category: Ablations
caption: Another.
settings: first
rows:
  same: {method: ditto, fields: {lam: 1.0}}
  spectral: {method: spectral, extras: [bands, split]}
"""

FIGURE = """
import pandas as pd
from pflbench.report import style
from pflbench.report.figures import accuracy_rows
def table(study):
    return pd.DataFrame([row for setting in study.settings
                         for row in accuracy_rows(study.collect(label=study.labels[0], setting=setting), {"setting": setting})])
def plot(frame):
    figure, axes = style.new(2, 2)
    axes[0, 0].plot(frame["mean"])
    return figure
"""


def folder(path, **figures):
    """A paper_figures folder."""
    path.mkdir()
    for name, text in figures.items():
        (path / name).mkdir()
        (path / name / "grid.yaml").write_text(text)
        (path / name / "figure.py").write_text(FIGURE)
    (path / "scales.yaml").write_text(SCALES)
    return path


def made(label, seed, gm=None, pm=None, setting="even", tested=(100, 100, 100, 100), **fields):
    """A run whose curves climb to 1, then end at ``gm`` and ``pm``: the maximum over rounds is never the result."""
    method = {"name": fields.pop("method", label), "fields": fields}
    experiment = Experiment.of({"method": method, "seed": seed, "clients": len(tested), "rounds": 3}).model_dump()
    address = sha256(repr((label, seed, setting, sorted(fields.items()))).encode()).hexdigest()[:16]
    correct = None if pm is None else [[0] * len(tested), list(tested), [round(pm * n) for n in tested]]
    record = {
        "address": address,
        "experiment": experiment,
        "rounds": 3,
        "diverged": None,
        "fingerprint": "",
        "clients": {"train": [40 + 10 * k for k in range(len(tested))], "test": list(tested), "official": 1000},
        "cohorts": [[0, 1]] * 3,
        "costs": {"contribute": [[4, 4]] * 3, "personalise": [[4, 4]] * 3, "up": 10, "down": 10, "bytes_per_number": 4},
        "curve": {
            "rounds": [1, 2, 3],
            "official": None if gm is None else [0, 1000, round(gm * 1000)],
            "generic": None,
            "personal": correct,
        },
        "provenance": {
            "seconds": 1.0,
            "finished": "2026-01-01T00:00:00+00:00",
            "commit": "0" * 40,
            "device": "cpu: x86",
            "packages": {"torch": "2"},
            "engine": "loop",
            "chunk": 64,
        },
    }
    return Run(label, setting, record, Path(f"{address}.json"))


def stored(run):
    """The same run as a result that could have been written: every field there, the address its experiment's."""
    record = run.record
    address = Experiment.of(record["experiment"]).address
    made = {"graphs": False, "threads": 1, "deterministic": True, "python": "3.11", "data": "made up", "memory": []}
    whole = {
        **record,
        "address": address,
        "meaning": MEANING,
        "clients": {**record["clients"], "validation": []},
        "curve": {**record["curve"], "generic_validation": None, "personal_validation": None},
        "provenance": {**record["provenance"], **made},
    }
    return Run(run.label, run.setting, sealed(whole), run.path.with_name(f"{address}.json"))


def study_of(runs, figure="accuracy", seeds=3):
    settings = {name: name.title() for name in dict.fromkeys(run.setting for run in runs)}
    return Study(figure, "tiny", "Title", "Accuracy", "Caption.", seeds, settings, {}, tuple(runs))


def rows_of(label, values, **more):
    return [made(label, seed, gm=value, pm=value, **more) for seed, value in enumerate(values)]


def accuracy_frame(**methods):
    module = figures.load_module(FIGURES / "accuracy" / "figure.py")
    return module, module.table(study_of([run for name, values in methods.items() for run in rows_of(name, values)]))


def claim_of(threshold=0.0, measures=("PM",), **more):
    sides = {"a": {"label": "spectral"}, "b": {"label": "others"}, **more}
    return claims.Claim(
        text="A claim.", figure="accuracy", measures=list(measures), contrasts=[sides], threshold=threshold
    )
