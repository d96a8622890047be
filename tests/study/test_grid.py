"""Grids and the workload they make: runs are shared, parts hold every one once, narrowing narrows."""

from pathlib import Path

import pytest
from studies import FIGURES, ONE, TWO

from pflbench.core.errors import BadInput
from pflbench.report import claims
from pflbench.study import grid
from pflbench.study.grid import Narrow
from pflbench.study.workload import Workload


def test_an_experiment_that_two_figures_need_is_run_once(root):
    plan = Workload.of("tiny", root=root)
    assert len(grid.cells("one", "tiny", root=root)) == 2 * 3 * 3  # settings x rows x seeds
    assert len(grid.cells("two", "tiny", root=root)) == 2 * 3
    assert len(plan.needed) == 18 + 6 - 3  # Ditto with lam 1 in the first setting is shared, for each seed
    shared = [each for each in plan.needed if each.figures == ("one", "two")]
    assert {each.experiment.method.name for each in shared} == {"ditto"}
    assert len({each.address for each in plan.needed}) == len(plan.needed)
    entries = [entry for manifest in plan.manifests.values() for entry in manifest["runs"]]
    assert {entry["address"] for entry in entries} == {each.address for each in plan.needed}


def test_parts_hold_every_run_once(root):
    plan = Workload.of("tiny", root=root)
    found = [each.address for number in range(plan.parts) for each in plan.part(number)]
    assert sorted(found) == sorted(each.address for each in plan.needed)
    assert plan.parts == 6
    for figure in ("one", "two"):
        own = {each.address for each in plan.needed if figure in each.figures}
        held = {each.address for number in plan.parts_of(figure) for each in plan.part(number)}
        assert own <= held


def test_narrowing_keeps_seeds_methods_and_settings(root):
    plan = Workload.of("tiny", narrow=Narrow(2, ["spectral"]), root=root)
    assert list(plan.manifests) == ["two"]
    assert [each.experiment.seed for each in plan.needed] in ([0, 1], [1, 0])
    with pytest.raises(BadInput, match="leave no run"):
        Workload.of("tiny", narrow=Narrow(methods=["fedrep"]), root=root)
    path = root / "two" / "grid.yaml"
    path.write_text(TWO.replace("same: {", "same: {always: true, "))
    assert [each.label for each in grid.cells("two", "tiny", Narrow(1, ["spectral"]), root)] == ["same", "spectral"]
    assert grid.cells("two", "tiny", Narrow(1, ["fedavg"]), root) == []  # a reference alone is no figure
    path.write_text(TWO + "subject: spectral\n")
    assert grid.cells("two", "tiny", Narrow(1, ["ditto"]), root) == []
    plan = Workload.of("tiny", narrow=Narrow(settings=["skewed"]), root=root)
    assert {each.experiment.partition.name for each in plan.needed} == {"dirichlet"}
    assert list(plan.manifests["two"]["settings"]) == ["skewed"]  # the first of those that are left
    with pytest.raises(BadInput, match="setting"):
        Workload.of("tiny", narrow=Narrow(settings=["skewd"]), root=root)


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
        Workload.of("tiny", root=root)


def test_a_scale_that_is_not_there_is_refused(root):
    with pytest.raises(BadInput, match="tiny"):
        Workload.of("tinny", root=root)


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


def test_the_manifest_names_what_narrowing_left_out(copy):
    manifest = Workload.of("tiny", ["one"], Narrow(methods=["fedavg"], settings=["even"])).manifests["one"]
    assert manifest["left_out"]["settings"] == ["skewed"]
    assert "fedavg" not in manifest["left_out"]["rows"]
    assert manifest["left_out"]["rows"]
    assert Workload.of("tiny", ["one"]).manifests["one"]["left_out"] == {"rows": [], "settings": []}


def test_ablations_may_have_fewer_seeds(copy):
    path = Path("paper_figures/scales.yaml")
    path.write_text(path.read_text().replace("seeds: 3", "seeds: 3\n  short_seeds: 2"))
    grids = {name: Path(f"paper_figures/{name}/grid.yaml") for name in ("one", "two")}
    grids["two"].write_text(grids["two"].read_text() + "short: true\n")
    plan = Workload.of("tiny")
    assert [plan.manifests[name]["seeds"] for name in ("one", "two")] == [3, 2]
    assert {entry["seed"] for entry in plan.manifests["two"]["runs"]} == {0, 1}
    assert Workload.of("tiny", narrow=Narrow(seeds=1)).manifests["two"]["seeds"] == 1
