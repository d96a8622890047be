"""The pages say what is so: numbers sent, passes, laws; the example on the page about plug-ins is run."""

import ast
import re
import shlex
from importlib.metadata import EntryPoint
from pathlib import Path

import mutations
import pytest
import torch
from applies import NOT_APPLICABLE, OF_THEIR_OWN
from click.testing import CliRunner

from pflbench.baselines import METHODS
from pflbench.cli import main
from pflbench.core import registry
from pflbench.core.fields import describe
from pflbench.core.method import Method
from pflbench.engine import engine
from pflbench.experiment.build import build
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.laws.identities import IDENTITIES
from pflbench.laws.laws import LAWS
from pflbench.laws.subject import Case

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = ROOT / "pflbench" / "baselines"
FAST = ["--clients", "5", "--rounds", "2", "--epochs", "1"]


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def call(*arguments: str):
    return CliRunner().invoke(main, list(arguments), env={"COLUMNS": "100"})


def table(text: str, first: str) -> dict[str, list[str]]:
    """The rows of the markdown table whose head's first cell is ``first``, by their first cells."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("name", METHODS.names())
def test_numbers_sent_are_those_measured(name):
    made, _ = build(resolve(Experiment.of({"method": name})), Machine(device="cpu"), torch.device("cpu"))
    _, cost = engine.play(made, engine.start(made), 0)
    rows = table(page(name), "per client")
    assert (int(rows["up"][0]), int(rows["down"][0])) == (cost.up, cost.down)


@pytest.mark.parametrize("name", METHODS.names())
def test_passes_are_those_of_the_engine(name):
    case = Case(name)
    work = case.method.work(case.world.task)
    epochs = {"E": case.world.task.epochs}
    told = {stage: (epochs.get(p) or int(p), int(g)) for stage, (p, g) in table(page(name), "stage").items()}
    gradients = {"contribute": work.gradients, "personalise": 1, "adapt": 1}
    passes = {stage: getattr(work, stage) for stage in gradients}
    assert told == {stage: (count, gradients[stage]) for stage, count in passes.items() if count}


@pytest.mark.parametrize("name", METHODS.names())
def test_a_page_names_what_holds_it(name):
    """Its identities, the laws that do not apply, its defects, an oracle that exists."""
    held = page(name).split("## What holds it")[1]
    named = set(re.findall(r"`(\w+)`", held))
    assert {i.__name__ for i in IDENTITIES} & named == OF_THEIR_OWN.get(name, set()) | {"sends_what_it_says"}
    assert {law.__name__ for law in LAWS} & named == NOT_APPLICABLE.get(name, set())
    assert f"`pflbench check {name}`" in held
    told = re.search(r"Mutations: ([^.]*)\.", held)
    assert set(map(int, re.findall(r"\d+", told[1] if told else ""))) == {
        mutation.number for mutation in mutations.MUTATIONS if mutation.method == name
    }
    for path in re.findall(r"`(tests/[\w/]+\.py)`", held):
        assert (ROOT / path).is_file()
    error = re.search(r"largest error ([\d.e-]+) in float64", " ".join(held.split()))
    assert 0 < float(error[1]) <= 1e-9


@pytest.mark.parametrize("name", METHODS.names())
def test_formulas_fit_a_terminal(name):
    """In 80 columns; a command may wrap."""
    for line in re.findall(r"^    (.*)$", page(name), re.MULTILINE):
        assert len(line) <= 78 or line.startswith(("python ", "pflbench ")), line


@pytest.mark.parametrize("name", METHODS.names())
def test_the_page_is_shown_above_the_fields(name):
    result = call("list", "methods", name)
    assert result.exit_code == 0
    assert "What holds it" in result.stdout
    for field in describe(METHODS.get(name)):
        assert field.name in result.stdout.split("What holds it")[1]


# --- Add your method in 20 lines -------------------------------------------------------------------------------------

ADD = (DOCS / "extend.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", ADD, re.DOTALL)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PFLBENCH_DATA", raising=False)
    Path("mine.py").write_text(EXAMPLES[0], encoding="utf-8")
    return tmp_path


def test_the_example_is_one_file_of_20_lines():
    (example,) = EXAMPLES
    (method,) = [node for node in ast.parse(example).body if isinstance(node, ast.ClassDef)]
    lines = example.splitlines()[method.lineno - 2 : method.end_lineno]  # with its decorator
    assert sum(bool(line.strip()) for line in lines) == 20


def test_the_commands_on_the_page_work(here):
    """``pflbench check ./mine.py`` fails no law; the run runs, here for two rounds."""
    commands = [shlex.split(line)[1:] for line in re.findall(r"^    (pflbench .*)$", ADD, re.MULTILINE)]
    assert [command[0] for command in commands] == ["check", "run"]
    checked = call(*commands[0])
    assert checked.exit_code == 0
    assert " 0 fail" in checked.stdout
    run = call(*commands[1], *FAST)
    assert run.exit_code == 0
    assert "personalised (PM)" in run.stdout


def test_the_contract_on_the_page_is_the_contract():
    told = {re.sub(r"[`(].*", "", signature.strip("`")) for signature in table(ADD, "function")}
    own = {name for name, item in vars(Method).items() if callable(item) and not name.startswith("_")}
    assert told == own - {"received"}  # of the policy for batch statistics alone


def test_an_installed_plug_in_is_a_method(here, monkeypatch, request):
    point = EntryPoint(name="fedbabu", value="my_fedbabu", group="pflbench.methods")
    registry.plugins.cache_clear()
    request.addfinalizer(registry.plugins.cache_clear)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    (here / "my_fedbabu.py").write_text(EXAMPLES[0], encoding="utf-8")
    monkeypatch.syspath_prepend(here)
    assert "fedbabu" in METHODS.names()
    assert METHODS.find("fedbabu").digest == METHODS.find("./mine.py").digest
    run = call("run", "--method", "fedbabu", *FAST)
    assert run.exit_code == 0
    assert "fedbabu" in run.stdout
    assert "fedbabu" in call("list", "methods").stdout
    shown = call("list", "methods", "fedbabu").stdout
    assert "2106.06042" in shown  # its docstring
    assert "What holds it" not in shown
    assert '[project.entry-points."pflbench.methods"]' in ADD
