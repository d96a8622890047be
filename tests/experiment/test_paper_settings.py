"""Each setting of the paper runs one round of every method, end to end, on tiny data of the official format."""

import json
import shutil
from pathlib import Path

import official
import pytest
import yaml
from click.testing import CliRunner

from pflbench.baselines import METHODS
from pflbench.cli import main
from pflbench.data import datasets
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.experiment.run import run

SETTINGS = Path(__file__).parents[2] / "paper_figures" / "settings"
FILES = sorted(SETTINGS.glob("*.yaml"))
IMAGES = (24, 9)  # to train, to test
SMALL = {"clients": 3, "participation": 0.5, "rounds": 1, "epochs": 1, "eval_every": 1}


def values(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root as a user has it: the two CIFAR archives and nothing else of CIFAR, and a prepared iNaturalist."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        for name in official.FAMILIES:
            official.cifar(folder, name, patch, IMAGES)
        for unpacked in folder.glob("cifar-*[ny]"):
            shutil.rmtree(unpacked)
        official.inaturalist(folder, patch)
        chosen = Experiment.of({**values(SETTINGS / "inaturalist.yaml"), "method": "fedavg"}).dataset
        datasets.prepare(chosen.name, folder, chosen.fields)
        yield folder


def test_the_settings_are_the_named_ones():
    assert [path.stem for path in FILES] == ["cifar10", "cifar100", "cifar10_skewed", "inaturalist"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_value_says_where_it_comes_from(path):
    """And none claims to be from the paper's tables, which were not at hand."""
    lines = path.read_text(encoding="utf-8").splitlines()
    told = [line for line in lines if line and not line.startswith("#")]
    assert len(told) == len(values(path))
    marks = ("[README]", "[options]", "[code]", "[ours]", "[summary of the paper]")
    assert all(any(mark in line.partition(" # ")[2] for mark in marks) for line in told)
    assert not any("[paper]" in line for line in lines)


def test_the_numbers_are_those_of_the_released_code():
    shared = {"participation": 0.2, "rounds": 500, "epochs": 5, "batch_size": 8, "lr": 0.03, "momentum": 0.5}
    for path in FILES:
        asked = Experiment.of({**values(path), "method": "fedavg"})
        assert {name: getattr(asked, name) for name in shared} == shared
        assert asked.augment == "crop_flip"
        assert (asked.weight_decay, asked.schedule.name, asked.weighting, asked.batchnorm) == (
            0,
            "constant",
            "samples",
            "aggregate",
        )
    found = {path.stem: Experiment.of({**values(path), "method": "fedavg"}) for path in FILES}
    rows = {name: (e.dataset.name, e.model.name, e.clients, e.partition.fields) for name, e in found.items()}
    mild, skewed = {"p": 0.7, "alpha": 10}, {"p": 0.5, "alpha": 0.3}
    assert rows == {
        "cifar10": ("cifar10", "resnet18", 100, mild),
        "cifar10_skewed": ("cifar10", "resnet18", 100, skewed),
        "cifar100": ("cifar100", "resnet34", 50, mild),
        "inaturalist": ("inaturalist", "resnet18", 20, mild),
    }


@pytest.mark.parametrize("method", METHODS.names())
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_one_round_of_every_method(root, tmp_path, path, method):
    """With a narrow network; what it deploys is tested, its numbers are finite, and the split and costs are whole."""
    own = values(path)
    narrow = {**own["model"], "width": 8}
    asked = Experiment.of({**own, **SMALL, "method": method, "model": narrow})
    record = run(asked, Machine(data_root=root, results=tmp_path)).record
    full = resolve(Experiment.of({**own, "method": method}), root)
    assert record["experiment"]["model"]["fields"] == {**full.experiment.model.fields, "width": 8}
    assert record["experiment"]["augment"] == "crop_flip"
    assert record["diverged"] is None
    trained = 16 if path.stem == "inaturalist" else IMAGES[0]
    assert sum(record["clients"]["train"]) == trained
    steps = [-(-record["clients"]["train"][k] // 8) for k in record["cohorts"][0]]
    spent = [g + p for g, p in zip(record["costs"]["contribute"][0], record["costs"]["personalise"][0], strict=True)]
    assert all(paid >= step and paid % step == 0 for paid, step in zip(spent, steps, strict=True))
    curve = record["curve"]
    assert any(curve[name] is not None for name in ("official", "personal"))


def test_one_line_starts_the_paper_s_experiment(root, tmp_path):
    """As in the README, but for options that make it small."""
    small = [
        "--clients",
        "3",
        "--rounds",
        "1",
        "--epochs",
        "1",
        "--model",
        "resnet18:width=8",
        "--results",
        str(tmp_path),
    ]
    line = ["run", "--config", str(SETTINGS / "cifar10.yaml"), "--method", "spectral", "--data-root", str(root)]
    done = CliRunner().invoke(main, [*line, *small, "--json"])
    assert done.exit_code == 0, done.output
    record = json.loads(next(tmp_path.rglob("*.json")).read_text())
    assert record["experiment"]["dataset"] == "cifar10"
    assert "official files, verified by MD5" in record["provenance"]["data"]
    assert not (root / "prepared" / "cifar10.safetensors").exists()  # a run writes nothing into the data root
