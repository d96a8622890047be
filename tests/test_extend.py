"""Everything chosen by name: what is there holds, and one file adds another, as the page `Extend` says."""

import inspect
import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from pflbench.cli import main
from pflbench.core.errors import BadInput
from pflbench.core.fields import describe
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.resolve import KINDS, resolve

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```(?:python|yaml) (\S+)\n(.*?)```", PAGE, re.DOTALL))
OWN = {  # field of an experiment -> the file of the page that is one, and how it is asked for
    "dataset": ("mydata.py", "./mydata.py"),
    "partition": ("mysplit.py", "./mysplit.py:share=0.4"),
    "model": ("mynet.py", "./mynet.py:width=8"),
    "schedule": ("mydecay.py", "./mydecay.py"),
    "cut": ("mine.yaml", "./mine.yaml"),
}
SMALL = {"method": "ditto", "dataset": "./mydata.py", "model": "mlp", "clients": 4, "rounds": 2, "epochs": 1}


def holds(field: str, name: str) -> None:
    """What must be so of everything that has a name."""
    kind = KINDS[field]
    thing = kind.find(name)
    assert kind.text(name).strip(), "says what it is"
    assert all(row.meaning for row in describe(thing.target)), "every field has a meaning"
    required = [row for row in describe(thing.target) if row.default is inspect.Parameter.empty]
    others = {"dataset": KINDS["dataset"].choose("digits")}
    if not required and field != "dataset" and kind.meant(name, others) == name:
        assert kind.choose(name, others=others).fields == {row.name: row.default for row in describe(thing.target)}
    with pytest.raises(BadInput, match="nofield"):
        kind.choose(name, {"nofield": "1"}, others=others)


@pytest.mark.parametrize(("field", "name"), [(field, name) for field, kind in KINDS.items() for name in kind.names()])
def test_what_is_there_holds(field, name):
    holds(field, name)


@pytest.mark.parametrize("field", KINDS)
def test_a_name_that_is_not_there_is_refused_with_what_is(field):
    with pytest.raises(BadInput, match="choose from"):
        KINDS[field].find("nothing_of_that_name")
    with pytest.raises(BadInput, match=r"no such file|cannot be read"):
        KINDS[field].find("./absent" + KINDS[field].suffixes[0])


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("field", OWN)
def test_one_file_adds_one(here, field):
    file, asked = OWN[field]
    holds(field, f"./{file}")
    run = CliRunner().invoke(main, ["run", *flags({**SMALL, field: asked}), "--json"])
    assert run.exit_code == 0, run.output
    before = json.loads(run.stdout.splitlines()[-1])
    assert not before["cached"]
    record = json.loads(Path(before["path"]).read_text())
    chosen = record["experiment"][field]
    assert chosen["digest"]
    moved = here / "elsewhere" / file
    moved.parent.mkdir()
    shutil.copy(here / file, moved)
    other = asked.replace(f"./{file}", str(moved))
    assert resolve(Experiment.of({**SMALL, field: other})).address == before["address"]  # where it lies is no number
    text = (here / file).read_text()
    (here / file).write_text(
        text.replace("0.9", "0.8")
        .replace("100", "90")
        .replace("Tanh", "ReLU")
        .replace("0.01,", "0.02,")
        .replace("max(1, int", "max(2, 1 + int")
    )
    assert resolve(Experiment.of({**SMALL, field: asked})).address != before["address"]  # what it computes is


def flags(fields):
    return [part for name, value in fields.items() for part in (f"--{name}", str(value))]


def test_a_figure_and_a_claim_are_found_by_their_names(here):
    """The figure's runs, its drawing and the verdict, from the files of the page alone."""
    (here / "paper_figures" / "scales.yaml").write_text(
        "desk: {about: small, seeds: 3, base: {clients: 4, rounds: 2, epochs: 1}, settings: {digits: {title: Digits}}}"
    )
    for command in (["grid"], ["figure"], ["claims", "--json"]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, (command, done.output, done.exception)
    (claim,) = json.loads(done.stdout)["claims"]
    assert (claim["claim"], claim["seeds"]) == ("M1", 3)
    for figure, endings in {"mine": ("csv", "png", "pdf"), "myaccuracy": ("csv", "png", "tex")}.items():
        for ending in endings:
            assert (here / "paper_figures" / figure / "out" / "desk" / f"{figure}.{ending}").stat().st_size > 100


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("two.py", "def a(labels, clients, rng): ...\ndef b(labels, clients, rng): ...", "exactly one function"),
        ("none.py", "x = 1", "exactly one function"),
        ("broken.py", "def a(:", "cannot be imported: SyntaxError"),
        ("raises.py", "1 / 0", "cannot be imported: ZeroDivisionError"),
        ("twice.py", "def f(labels, clients, rng): return [[0]] * clients", "no sample to two clients"),
        ("few.py", "def f(labels, clients, rng): return [[0]]", "at least one sample"),
        ("far.py", "def f(labels, clients, rng): return [[len(labels) + k] for k in range(clients)]", "none but 0 to"),
    ],
)
def test_a_partition_that_cannot_be_used_is_refused_in_one_line(here, name, text, match):
    (here / name).write_text(text)
    run = CliRunner().invoke(main, ["run", *flags({**SMALL, "partition": f"./{name}"})])
    assert run.exit_code == 2
    assert re.search(match, run.output)
    assert len(run.output.strip().splitlines()) == 1
    assert not (here / "results").exists()
