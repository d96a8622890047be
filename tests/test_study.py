"""The study: runs are shared and complete or the figure fails, verdicts follow from numbers, the CSV is what is drawn."""

import base64
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from worlds import world

from pflbench import claims, draw, engine, evaluation, grid, registry, report, spectra, spectral, stats, study
from pflbench.cli import main
from pflbench.errors import BadInput
from pflbench.forecast import _load, _speed, forecast
from pflbench.gather import Run, Study, collect
from pflbench.grid import Narrow, Plan
from pflbench.plan import Experiment, Machine

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
from pflbench import style
from pflbench.draw import accuracy_rows
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


@pytest.fixture
def root(tmp_path):
    return folder(tmp_path / "paper_figures", one=ONE, two=TWO)


# Grids


def test_an_experiment_that_two_figures_need_is_run_once(root):
    plan = Plan.of("tiny", root=root)
    assert len(grid.cells("one", "tiny", root=root)) == 2 * 3 * 3  # settings x rows x seeds
    assert len(grid.cells("two", "tiny", root=root)) == 2 * 3
    assert len(plan.needed) == 18 + 6 - 3  # Ditto with lam 1 in the first setting is shared, for each seed
    shared = [each for each in plan.needed if each.figures == ("one", "two")]
    assert {each.experiment.method.name for each in shared} == {"ditto"}
    assert len({each.address for each in plan.needed}) == len(plan.needed)
    entries = [entry for manifest in plan.manifests.values() for entry in manifest["runs"]]
    assert {entry["address"] for entry in entries} == {each.address for each in plan.needed}


def test_parts_hold_every_run_once(root):
    plan = Plan.of("tiny", root=root)
    found = [each.address for number in range(plan.parts) for each in plan.part(number)]
    assert sorted(found) == sorted(each.address for each in plan.needed)
    assert plan.parts == 6
    for figure in ("one", "two"):
        own = {each.address for each in plan.needed if figure in each.figures}
        held = {each.address for number in plan.parts_of(figure) for each in plan.part(number)}
        assert own <= held


def test_narrowing_keeps_seeds_methods_and_settings(root):
    plan = Plan.of("tiny", narrow=Narrow(2, ["spectral"]), root=root)
    assert list(plan.manifests) == ["two"]
    assert [each.experiment.seed for each in plan.needed] in ([0, 1], [1, 0])
    with pytest.raises(BadInput, match="leave no run"):
        Plan.of("tiny", narrow=Narrow(methods=["fedrep"]), root=root)
    path = root / "two" / "grid.yaml"
    path.write_text(TWO.replace("same: {", "same: {always: true, "))
    assert [each.label for each in grid.cells("two", "tiny", Narrow(1, ["spectral"]), root)] == ["same", "spectral"]
    assert grid.cells("two", "tiny", Narrow(1, ["fedavg"]), root) == []  # a reference alone is no figure
    path.write_text(TWO + "subject: spectral\n")
    assert grid.cells("two", "tiny", Narrow(1, ["ditto"]), root) == []
    plan = Plan.of("tiny", narrow=Narrow(settings=["skewed"]), root=root)
    assert {each.experiment.partition.name for each in plan.needed} == {"dirichlet"}
    assert list(plan.manifests["two"]["settings"]) == ["skewed"]  # the first of those that are left
    with pytest.raises(BadInput, match="setting"):
        Plan.of("tiny", narrow=Narrow(settings=["skewd"]), root=root)


def test_lists_are_multiplied():
    points = list(grid._each({"a": [1, 2], "b": [3, 4], "c": 5}))
    assert points == [{"a": a, "b": b, "c": 5} for a in (1, 2) for b in (3, 4)]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("method: fedavg", "method: fedavgg"), "fedavg"),
        (("lam: [0.5, 1]", "lamb: 1"), "unknown field"),
        (("category: Accuracy", "categorie: Accuracy"), "grid of one"),
        (("rows:", "settings: [odd]\nrows:"), "setting of one"),
        (("rows:", "base: {roundz: 3}\nrows:"), "roundz"),
    ],
)
def test_a_bad_grid_is_refused_by_name(root, change, match):
    path = root / "one" / "grid.yaml"
    path.write_text(ONE.replace(*change))
    with pytest.raises(BadInput, match=match):
        Plan.of("tiny", root=root)


def test_a_scale_that_is_not_there_is_refused(root):
    with pytest.raises(BadInput, match="tiny"):
        Plan.of("tinny", root=root)


@pytest.mark.parametrize("scale", ["desk", "fashion", "paper"])
def test_the_real_grids_are_sound(scale):
    """Every figure has its drawing, every experiment is one, and the claims name figures and rows that exist."""
    for name in grid.names(FIGURES):
        assert (FIGURES / name / "figure.py").is_file()
        assert grid.cells(name, scale, root=FIGURES)
    for claim in claims.read(FIGURES / "claims.yaml").values():
        rows = grid.read_grid(claim.figure, FIGURES).rows
        sides = [side for contrast in claim.contrasts for side in (contrast.a, contrast.b) if side]
        assert {side.label for side in sides} <= {*rows, "others"}
        assert claim.reported is None  # never from memory
    assert list(claims.read(FIGURES / "claims.yaml")) == [f"C{n}" for n in range(1, 9)]


# Synthetic runs


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


def study_of(runs, figure="accuracy", seeds=3):
    settings = {name: name.title() for name in dict.fromkeys(run.setting for run in runs)}
    return Study(figure, "tiny", "Title", "Accuracy", "Caption.", seeds, settings, {}, tuple(runs))


def rows_of(label, values, **more):
    return [made(label, seed, gm=value, pm=value, **more) for seed, value in enumerate(values)]


# A figure gets exactly what it asks for


def test_collect_gives_one_run_per_seed():
    runs = rows_of("ditto", (0.7, 0.8, 0.9), lam=1.0) + rows_of("ditto", (0.1, 0.1, 0.1), lam=2.0)
    found = collect(runs[::-1], range(3), label="ditto", **{"method.lam": 1.0})
    assert [run.seed for run in found] == [0, 1, 2]


def test_collect_fails_on_a_field_that_was_not_mentioned():
    runs = rows_of("ditto", (0.7, 0.8, 0.9), lam=1.0) + rows_of("ditto", (0.1, 0.1, 0.1), lam=2.0)
    with pytest.raises(BadInput, match=r"differ in method.lam \(1.0, 2.0\)"):
        collect(runs, range(3), label="ditto")


def test_collect_fails_on_a_missing_and_on_a_doubled_run():
    runs = rows_of("ditto", (0.7, 0.8, 0.9), lam=1.0)
    with pytest.raises(BadInput, match="0 runs with seed 1"):
        collect([runs[0], runs[2]], range(3), label="ditto")
    with pytest.raises(BadInput, match="2 runs with seed 2"):
        collect([*runs, runs[2]], range(3), label="ditto")
    with pytest.raises(BadInput, match="3 runs for 2 seeds"):
        collect(runs, range(2), label="ditto")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished tiny study: its paper_figures and its results."""
    here = tmp_path_factory.mktemp("finished")
    folder(here / "paper_figures", one=ONE, two=TWO)
    plan = Plan.of("tiny", root=here / "paper_figures")
    plan.write(here / "paper_figures")
    assert study.work(plan.needed, Machine(device="cpu", results=here / "results")) == []
    return here


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """A copy of it as the working directory."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_a_figure_is_drawn_from_all_of_its_runs_or_not_at_all(copy):
    files = draw.produce("one", "tiny", Path("results"))
    assert {file.suffix for file in files} == {".csv", ".pdf", ".png", ".svg"}
    assert b"/FontFile2" in files[1].read_bytes()  # fonts embedded as TrueType
    before = {file: file.read_bytes() for file in files}
    assert {file: file.read_bytes() for file in draw.produce("one", "tiny", Path("results"))} == before
    next(Path("results/fedavg").glob("*.json")).unlink()
    with pytest.raises(BadInput, match="this run is missing"):
        draw.produce("one", "tiny", Path("results"))
    outcome = CliRunner().invoke(main, ["figure", "one", "--scale", "tiny"])
    assert outcome.exit_code == 2
    assert "this run is missing" in outcome.output


def test_a_run_that_crashes_fails_the_figure_and_no_other_run(copy, monkeypatch):
    """Mutation 18: a crashed run silently left out of a mean."""
    plan, machine = Plan.of("tiny", ["two"]), Machine(device="cpu", results=Path("fresh"))
    real, doomed = study.run, plan.needed[3].address

    def crash(experiment, *rest):
        if experiment.address == doomed:
            raise RuntimeError("out of memory")
        return real(experiment, *rest)

    monkeypatch.setattr(study, "run", crash)
    failures = study.work(plan.needed, machine)
    assert [(each.needed.address, each.reason) for each in failures] == [(doomed, "RuntimeError: out of memory")]
    assert sum(each.done(machine.results) for each in plan.needed) == len(plan.needed) - 1
    with pytest.raises(BadInput, match=doomed):
        draw.produce("two", "tiny", Path("fresh"))
    monkeypatch.setattr(study, "run", real)
    assert study.work(plan.needed, machine) == []  # goes on with what is missing
    draw.produce("two", "tiny", Path("fresh"))


def test_the_grid_command_fails_if_a_run_fails(copy, monkeypatch):
    def crash(*rest):
        raise RuntimeError("no")

    monkeypatch.setattr(study, "run", crash)
    outcome = CliRunner().invoke(main, ["grid", "--scale", "tiny", "--results", "empty", "--part", "1/6"])
    assert outcome.exit_code == 1
    assert "RuntimeError: no" in outcome.output
    outcome = CliRunner().invoke(main, ["grid", "--scale", "tiny", "--part", "7/6"])
    assert outcome.exit_code == 2


def test_committed_results_count(copy):
    Path("results/reference").mkdir()
    shutil.move("results/fedavg", "results/reference/fedavg")
    draw.produce("one", "tiny", Path("results"))
    assert all(each.done(Path("results")) for each in Plan.of("tiny", ["one"]).needed)


# Never the best round


def test_the_best_round_is_never_reported():
    """Mutation 17: every synthetic curve passes through 100 % and ends lower."""
    run = made("ditto", 0, gm=0.5, pm=0.6)
    assert draw.accuracy(run, "GM") == 0.5
    assert draw.accuracy(run, "PM") == 0.6
    module = draw.load_module(FIGURES / "accuracy" / "figure.py")
    frame = module.table(study_of(rows_of("ditto", (0.5, 0.5, 0.5)) + rows_of("fedavg", (0.6, 0.6, 0.6))))
    assert frame["mean"].max() == 0.6


# The accuracy table


def accuracy_frame(**methods):
    module = draw.load_module(FIGURES / "accuracy" / "figure.py")
    return module, module.table(study_of([run for name, values in methods.items() for run in rows_of(name, values)]))


def test_nothing_is_bold_without_support():
    module, frame = accuracy_frame(spectral=(0.7, 0.9, 0.8), ditto=(0.75, 0.79, 0.8), fedavg=(0.1, 0.11, 0.12))
    marks = dict(zip(frame[frame["model"] == "PM"]["method"], frame[frame["model"] == "PM"]["mark"], strict=True))
    assert marks == {"spectral": "tied", "ditto": "tied", "fedavg": ""}
    assert "mathbf" not in module.latex(frame)
    assert module.latex(frame).count(r"\dagger") == 4


def test_a_clear_winner_is_bold():
    module, frame = accuracy_frame(spectral=(0.9, 0.91, 0.92), ditto=(0.7, 0.71, 0.72), fedavg=(0.1, 0.11, 0.12))
    assert list(frame[frame["mark"] == "best"]["method"]) == ["spectral", "spectral"]
    text = module.latex(frame)
    assert text.count("mathbf") == 2
    assert r"\toprule" in text
    assert r"\dagger" not in text
    ranks = frame.drop_duplicates(["method", "model"]).set_index(["method", "model"])["rank"]
    assert ranks["spectral", "GM"] == 1
    assert ranks["fedavg", "PM"] == 3


def test_one_seed_gives_no_winner():
    module = draw.load_module(FIGURES / "accuracy" / "figure.py")
    runs = [made("spectral", 0, 0.9, 0.9), made("ditto", 0, 0.1, 0.1)]
    frame = module.table(study_of(runs, seeds=1))
    assert set(frame["mark"]) == {"tied"}
    assert frame["low"].isna().all()


def test_the_interval_of_the_table_is_students():
    row = draw.estimate([made("ditto", seed) for seed in range(3)], (0.7, 0.8, 0.9))
    assert row["mean"] == pytest.approx(0.8)
    assert row["high"] - row["mean"] == pytest.approx(4.302653 * 0.1 / 3**0.5)  # t at 2 degrees of freedom
    assert len(row["runs"].split()) == 3


# The CSV is what is drawn


def test_the_csv_is_what_is_drawn(tmp_path):
    module, frame = accuracy_frame(spectral=(0.9, 0.91, 0.92), ditto=(0.88, 0.89, 0.9), fedprox=(0.5, 0.51, 0.52))
    path = tmp_path / "accuracy.csv"
    draw.write_csv(frame, path)
    back = draw.read_csv(path)
    pd.testing.assert_frame_equal(back.fillna(""), frame.fillna(""), check_dtype=False, check_exact=True)
    axes = module.plot(back).axes
    drawn = {float(line.get_xdata()[0]) for ax in axes for line in ax.lines if len(line.get_xdata()) == 1}
    assert {0.89, 0.91} <= drawn
    assert 0.51 not in drawn  # far behind: told in words
    assert any("51.0" in text.get_text() for ax in axes for text in ax.texts)


def test_lines_pass_through_the_numbers_of_the_csv():
    module = draw.load_module(FIGURES / "truncation" / "figure.py")
    runs = rows_of("default", (0.5, 0.6, 0.7), method="spectral", tau=0.4)
    for number, tau in enumerate((0.1, 0.4, 1.0)):
        for keep in ("low", "high", "random", "prefix"):
            if tau < 1 or keep == "low":
                values = [0.5 + 0.1 * number + 0.01 * seed * len(keep) for seed in range(3)]
                runs += rows_of(keep, values, method="spectral", tau=tau, keep=keep)
    frame = module.table(study_of(runs, "truncation"))
    lines = {
        (model, line.get_label()): line.get_ydata()
        for model, ax in zip(("GM", "PM"), module.plot(frame).axes, strict=True)
        for line in ax.lines
    }
    for keep, look in module.KEEPS.items():
        for model in ("GM", "PM"):
            own = frame[(frame["keep"] == keep) & (frame["model"] == model)].sort_values("tau")
            assert list(own["tau"]) == [0.1, 0.4, 1.0]  # at 1 every control is the same experiment
            assert list(lines[model, look.title]) == list(own["mean"])
            assert own["mean"].iloc[-1] == 0  # differences to ratio 1


def test_a_table_without_runs_is_refused(tmp_path):
    with pytest.raises(BadInput, match="every row the runs behind it"):
        draw.write_csv(pd.DataFrame({"mean": [1.0], "runs": [""]}), tmp_path / "x.csv")


# Claims


def claim_of(threshold=0.0, measures=("PM",), **more):
    sides = {"a": {"label": "spectral"}, "b": {"label": "others"}, **more}
    return claims.Claim(
        text="A claim.", figure="accuracy", measures=list(measures), contrasts=[sides], threshold=threshold
    )


@pytest.mark.parametrize(
    ("mine", "verdict"),
    [((0.90, 0.91, 0.92), "supported"), ((0.50, 0.51, 0.52), "not supported"), ((0.6, 0.8, 0.7), "inconclusive")],
)
def test_verdicts_on_known_answers(mine, verdict):
    runs = rows_of("spectral", mine) + rows_of("ditto", (0.70, 0.71, 0.72)) + rows_of("fedavg", (0.68, 0.69, 0.70))
    found = claims.judge("C0", claim_of(), study_of(runs))
    assert found.verdict == verdict
    assert len(found.findings) == 2
    assert found.findings[0].interval.mean == pytest.approx(np.mean(mine) - 0.71)
    assert found.findings[0].interval == stats.seed_interval(np.array(mine) - [0.70, 0.71, 0.72])


def test_one_clear_loss_denies_and_one_open_contrast_keeps_open():
    ditto, fedavg = rows_of("ditto", (0.70, 0.71, 0.72)), rows_of("fedavg", (0.95, 0.96, 0.97))
    runs = [*rows_of("spectral", (0.80, 0.81, 0.82)), *ditto, *fedavg]
    assert claims.judge("C0", claim_of(), study_of(runs)).verdict == "not supported"
    runs = [*rows_of("spectral", (0.80, 0.81, 0.82)), *ditto, *rows_of("fedavg", (0.7, 0.9, 0.6))]
    judgement = claims.judge("C0", claim_of(), study_of(runs))
    assert judgement.verdict == "inconclusive"
    assert [each.b for each in judgement.failing] == ["fedavg"]


def test_fewer_than_three_seeds_decide_nothing():
    runs = rows_of("spectral", (0.90, 0.91)) + rows_of("ditto", (0.1, 0.11))
    assert claims.judge("C0", claim_of(), study_of(runs, seeds=2)).verdict == "inconclusive"
    runs = rows_of("spectral", (0.90,)) + rows_of("ditto", (0.1,))
    assert claims.judge("C0", claim_of(), study_of(runs, seeds=1)).verdict == "inconclusive"


def test_equal_runs_are_inconclusive():
    runs = rows_of("spectral", (0.5, 0.6, 0.7)) + rows_of("ditto", (0.5, 0.6, 0.7))
    assert claims.judge("C0", claim_of(), study_of(runs)).verdict == "inconclusive"


def test_a_method_without_such_a_model_is_not_compared():
    runs = rows_of("spectral", (0.90, 0.91, 0.92)) + [made("local_only", seed, pm=0.1) for seed in range(3)]
    assert claims.judge("C0", claim_of(measures=["GM"]), study_of(runs)).note
    assert claims.judge("C0", claim_of(), study_of(runs)).verdict == "supported"


def test_a_coefficient_is_chosen_on_the_other_seeds():
    """Rows: two choices; columns: seeds. Without seed 0 the second is best, without seed 1 or 2 the first."""
    values = np.array([[0.9, 0.5, 0.6], [0.1, 0.7, 0.8]])
    table = [
        [made("kl", seed, pm=value, lam=choice) for seed, value in enumerate(row)] for choice, row in enumerate(values)
    ]
    assert [draw.accuracy(run, "PM") for run in claims.tuned(table, values)] == pytest.approx([0.1, 0.5, 0.6])


def test_the_gain_is_judged_per_fleet():
    claim = claims.Claim(
        text="", figure="waitfree", measures=["gain"], contrasts=[{"a": {"label": "spectral"}}], threshold=1.5
    )
    found = claims.judge("C3", claim, study_of(rows_of("spectral", (0.5, 0.5, 0.5)), "waitfree"))
    assert len(found.findings) == len(claims.fleet_names())
    assert all(1 <= each.interval.mean <= 2 for each in found.findings)


def test_doublings_by_hand():
    assert claims.doublings(np.array([1.0, 3.0, 9, 9, 9, 9, 7.0, 9.0])) == pytest.approx(2)  # mean 8 over mean 2


# Bands of the spectrum


def test_bands_add_up_to_the_divergence_of_the_method():
    chance = torch.Generator().manual_seed(0)
    shapes = [(6, 9), (4, 3, 3, 3)]
    pm, gm = ([torch.randn(shape, generator=chance, dtype=torch.float64) for shape in shapes] for _ in range(2))
    plan = spectral.Plan(((6, 9), (4, 27)))
    whole = spectral.distance(gm, plan, "kl", "pm")(pm)
    found = spectra.bands(pm, gm)
    torch.testing.assert_close(found.divergence.sum(), whole)
    torch.testing.assert_close(found.mass.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert (spectra.bands(pm, pm).divergence.abs() < 1e-15).all()
    shuffled = spectra.bands(pm, gm, permute=True)
    torch.testing.assert_close(shuffled.mass.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert not torch.allclose(shuffled.divergence, found.divergence)


def test_the_lowest_band_holds_the_lowest_frequencies():
    """Two models that differ by one slow wave differ in the lowest band, unless entries are shuffled."""
    noise = torch.randn((16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slow = torch.cos(2 * torch.pi * torch.arange(16, dtype=torch.float64) / 16)[:, None].expand(16, 16)
    plain, shuffled = (spectra.bands([noise + slow], [noise], permute).relative for permute in (False, True))
    assert plain[0] > 10 * plain[1:].max()
    assert shuffled[0] < 2 * shuffled[1:].max()


def test_measured_models_are_those_of_the_record(copy):
    each = next(one for one in Plan.of("tiny", ["two"]).needed if one.extras)
    path = each.path(Path("results"))
    frame = pd.read_csv(path.with_suffix(".bands.csv"))
    assert set(frame["round"]) == {1, 2}
    assert len(frame) == 2 * 2 * spectra.BANDS
    card = draw.load_module(FIGURES / "partition" / "figure.py").card_of(path.with_suffix(".split.npz"))
    assert card["train_sizes"] == json.loads(path.read_text())["clients"]["train"]
    record = {**json.loads(path.read_text()), "fingerprint": "other"}
    with pytest.raises(BadInput, match="does not come out the same"):
        list(study.band_rows(each.experiment, Machine(device="cpu"), record))


# Trace, verify, plan


def test_trace_names_the_runs_of_a_cell(copy):
    outcome = CliRunner().invoke(main, ["trace", "one", "--scale", "tiny", "--cell", "fedavg,even", "--json"])
    rows = json.loads(outcome.output)["runs"]
    assert [row["seed"] for row in rows] == [0, 1, 2]
    assert all(Path(row["path"]).exists() and row["experiment"]["partition"]["name"] == "iid" for row in rows)
    outcome = CliRunner().invoke(main, ["trace", "one", "--scale", "tiny", "--cell", "fedavg,digits"])
    assert outcome.exit_code == 0
    assert "6 runs" in outcome.output
    assert CliRunner().invoke(main, ["trace", "one", "--scale", "tiny", "--cell", "fedrep,even"]).exit_code == 2


def test_verify_says_identical_or_what_differs(copy):
    path = next(Path("results/fedavg").glob("*.json"))
    outcome = CliRunner().invoke(main, ["verify", path.stem])
    assert (outcome.exit_code, "identical" in outcome.output) == (0, True)
    record = json.loads(path.read_text())
    record["curve"]["official"][-1] += 1
    path.write_text(json.dumps(record))
    outcome = CliRunner().invoke(main, ["verify", path.stem])
    assert outcome.exit_code == 1
    assert "curve.official[1]" in outcome.output
    assert CliRunner().invoke(main, ["verify"]).exit_code == 2


def test_plan_counts_what_is_there_and_predicts_the_rest(copy):
    plan, machine = Plan.of("tiny"), Machine(device="cpu", results=Path("results"))
    nothing = forecast(plan, machine, rounds=1)
    assert nothing.figures["all"].seconds == 0
    assert nothing.memory == {}
    for path in Path("results/fedavg").glob("*.json"):
        path.unlink()
    told = []
    bill = forecast(plan, machine, rounds=1, watch=lambda done, total: told.append((done, total)))
    found = bill.figures
    assert told == [(number, 6) for number in range(1, 7)]
    assert (found["all"].runs, found["all"].cached) == (21, 15)
    assert (found["two"].runs, found["two"].cached) == (6, 6)
    assert found["one"].seconds == found["all"].seconds > 0
    assert found["all"].disk > 0
    (held,) = bill.memory.values()
    assert held["data"].bytes == 1797 * (64 + 8)
    assert bill.wall_s(3, 2, 1) == pytest.approx(found["all"].seconds + 3 * bill.start_s + 2 * bill.draw_s)
    assert bill.wall_s(3, 2, 2) == pytest.approx(2 * (found["all"].seconds / 3 + bill.start_s) + bill.draw_s)
    shown = CliRunner().invoke(main, ["plan", "--scale", "tiny", "--device", "cpu"])
    assert shown.exit_code == 0, shown.output
    assert "client states" in shown.output


def test_a_forecast_by_sample_weighs_what_it_left_out(monkeypatch):
    """Costs counted, not timed: 10 of 40 clients with a few batches each stand for all that one round and one
    evaluation of the whole world compute, fine-tuning included."""
    whole = world(registry.method_class("fedavg_ft")(), engine="loop", sizes=(90, 30, 60, 10) * 10, cohort_size=8)
    clock, step = [0.0], 1.0

    def stage(world, name, function, w, c, cohort, round, epochs):
        clock[0] += step * epochs * sum(-(-len(world.train[k]) // world.batch_size) for k in cohort)
        return engine_stage(world, name, function, w, c, cohort, round, 0)

    engine_stage = engine.stage
    monkeypatch.setattr(engine, "stage", stage)
    monkeypatch.setattr(evaluation, "stage", stage)
    monkeypatch.setattr("pflbench.forecast.time.monotonic", lambda: clock[0])
    speed, trains = _speed(whole, 3)
    federation = engine.start(whole)
    clock[0] = 0.0
    engine.play(whole, federation, 5)
    assert clock[0] == pytest.approx(speed * _load(whole, 5))
    clock[0] = 0.0
    evaluation.evaluate(whole, federation, 5)
    assert clock[0] == pytest.approx(trains, rel=0.05)


def test_a_narrowed_study_supports_no_claim_about_what_it_left_out():
    claim = claims.read(FIGURES / "claims.yaml")["C1"]
    runs = rows_of("spectral", (0.8, 0.81, 0.82)) + rows_of("fedavg", (0.5, 0.51, 0.52))
    whole = study_of(runs)
    assert claims.judge("C1", claim, whole).verdict == "supported"
    for left_out in ({"rows": ["ditto"]}, {"settings": ["skewed"]}):
        found = claims.judge("C1", claim, replace(whole, left_out=left_out))
        assert found.verdict == "inconclusive"
        assert next(iter(left_out.values()))[0] in found.note
    lost = study_of(rows_of("spectral", (0.1, 0.11, 0.12)) + rows_of("fedavg", (0.5, 0.51, 0.52)))
    assert claims.judge("C1", claim, replace(lost, left_out={"rows": ["ditto"]})).verdict == "not supported"
    audit = claims.read(FIGURES / "claims.yaml")["C8"]
    assert "local_only" not in claims._left_out(audit, replace(whole, left_out={"rows": ["fedprox"]}))


def test_the_manifest_names_what_narrowing_left_out(copy):
    manifest = Plan.of("tiny", ["one"], Narrow(methods=["fedavg"], settings=["even"])).manifests["one"]
    assert manifest["left_out"]["settings"] == ["skewed"]
    assert "fedavg" not in manifest["left_out"]["rows"]
    assert manifest["left_out"]["rows"]
    assert Plan.of("tiny", ["one"]).manifests["one"]["left_out"] == {"rows": [], "settings": []}


# The report


@pytest.fixture(scope="module")
def page(tmp_path_factory, finished):
    """A report on synthetic runs: the accuracy figure and every claim."""
    here = tmp_path_factory.mktemp("report")
    root = folder(here / "paper_figures")
    shutil.copytree(FIGURES / "accuracy", root / "accuracy", ignore=shutil.ignore_patterns("out"))
    shutil.copy(FIGURES / "claims.yaml", root)
    methods = {"spectral": (0.8, 0.9, 0.7), "ditto": (0.91, 0.92, 0.93), "fedavg": (0.5, 0.6, 0.4)}
    runs = [run for name, values in methods.items() for run in rows_of(name, values)]
    for run in runs:
        path = here / "results" / run.label / f"{run.address}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(run.record))
    own = ("label", "setting", "seed", "address")
    manifest = {
        "figure": "accuracy",
        "scale": "tiny",
        "seeds": 3,
        "title": "Accuracy",
        "category": "Accuracy",
        "caption": "A caption.",
        "settings": {"even": "Even"},
        "titles": {},
        "runs": [{**{name: getattr(run, name) for name in own}, "method": run.label} for run in runs],
    }
    path = grid.out_folder("accuracy", "tiny", root) / "runs.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(manifest))
    draw.produce("accuracy", "tiny", here / "results", root)
    report.write(here / "report.html", "tiny", here / "results", root=root)
    return here / "report.html", runs


def test_the_report_says_every_verdict_in_the_same_size(page):
    text = page[0].read_text()
    for name, claim in claims.read(FIGURES / "claims.yaml").items():
        assert f'id="claim-{name}"' in text
        assert claim.text.replace("'", "&#39;") in text
    words = re.findall(r'<span class="word">. ([a-z ]+)</span>', text)
    assert len(words) == 8
    assert set(words) <= {"supported", "not supported", "inconclusive"}
    assert not re.search(r"\.(supported|not-supported|inconclusive)[^{]*\{[^}]*font-size", text)


def test_the_report_needs_no_network_and_links_every_number_to_its_runs(page):
    text = page[0].read_text()
    assert not re.search(r'(src|href)="(?!#|data:)', text)
    assert "@import" not in text
    kind, image = re.search(r'src="data:image/(svg\+xml|png);base64,([^"]+)"', text).groups()
    assert (b"<svg" if kind == "svg+xml" else b"PNG") in base64.b64decode(image)[:2000]
    for run in page[1]:
        assert f'id="run-{run.address}"' in text
        assert text.count(f'href="#run-{run.address}"') >= 2
    assert set(re.findall(r'href="#run-([0-9a-f]+)"', text)) <= set(re.findall(r'id="run-([0-9a-f]+)"', text))


def test_a_report_of_other_runs_than_were_drawn_is_refused(page, tmp_path):
    """Two seeds in the manifest, three in the figure on disk."""
    shutil.copytree(page[0].parent, tmp_path / "copy")
    root = tmp_path / "copy" / "paper_figures"
    path = grid.out_folder("accuracy", "tiny", root) / "runs.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "seeds": 2, "runs": [r for r in manifest["runs"] if r["seed"] < 2]}))
    with pytest.raises(BadInput, match="was drawn from other runs; `pflbench figure accuracy --scale tiny`"):
        report.write(tmp_path / "report.html", "tiny", tmp_path / "copy" / "results", root=root)
    assert not (tmp_path / "report.html").exists()


def test_ablations_may_have_fewer_seeds(copy):
    path = Path("paper_figures/scales.yaml")
    path.write_text(path.read_text().replace("seeds: 3", "seeds: 3\n  short_seeds: 2"))
    grids = {name: Path(f"paper_figures/{name}/grid.yaml") for name in ("one", "two")}
    grids["two"].write_text(grids["two"].read_text() + "short: true\n")
    plan = Plan.of("tiny")
    assert [plan.manifests[name]["seeds"] for name in ("one", "two")] == [3, 2]
    assert {entry["seed"] for entry in plan.manifests["two"]["runs"]} == {0, 1}
    assert Plan.of("tiny", narrow=Narrow(seeds=1)).manifests["two"]["seeds"] == 1


def test_the_report_opens_and_sorts_in_a_browser(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine: the page is not opened")
    sort = "document.querySelectorAll('#table ~ .scroll thead tr.keys th')[1].click();"
    path = tmp_path / "page.html"
    path.write_text(page[0].read_text().replace("reveal();\n</script>", f"reveal();\n{sort}\n</script>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    found = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    table = found.stdout[found.stdout.index('id="table"') :]
    methods = re.findall(r"<tr><td>([^<]+)</td>", table[: table.index("</table>")])
    assert methods == ["FedAvg", "Spectral", "Ditto"]  # by accuracy of the GM, lowest first
    assert 'aria-sort="ascending"' in table


def test_readers_of_results_do_not_need_torch():
    code = "import sys; import pflbench.report, pflbench.claims, pflbench.style; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_figures_do_not_import_torch():
    for path in FIGURES.glob("*/figure.py"):
        assert "torch" not in path.read_text(), path


def test_the_workflow_holds_together(copy):
    """Snakemake finds a way from the runs to the report, and knows what is there already."""
    if shutil.which("snakemake", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("Snakemake is not installed")
    shutil.copy(ROOT / "Snakefile", "Snakefile")
    shutil.copy(FIGURES / "claims.yaml", "paper_figures/claims.yaml")
    shutil.copytree(FIGURES / "gain", "paper_figures/gain")
    manifests = {path: path.unlink() for path in Path("paper_figures").rglob("runs.json")}
    next(Path("results/fedavg").glob("*.json")).unlink()
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--config", "scale=tiny"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    told = found.stdout + found.stderr
    assert found.returncode == 0, told
    assert re.search(r"^figure_one +1$", told, re.MULTILINE)
    assert re.search(r"^report_page +1$", told, re.MULTILINE)
    assert manifests
    assert not any(path.exists() for path in manifests)  # a dry run changes nothing
