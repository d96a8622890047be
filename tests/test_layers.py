"""The house: every module in a wing, imports only downwards; who may know what; what may be loaded for what."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pflbench"
WINGS = (  # from the top: a module imports from its own wing and from those below
    "cli",
    "commands",
    "report",
    "study",
    "live",
    "experiment",
    "clock",
    "laws",
    "engine",
    "data",
    "models",
    "baselines",
    "method",
    "core",
)
FACES = ("method",)  # one file for what is written outside
MOST_FILES, MOST_LINES = 11, 350
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """``core.tree``; a package is named by its folder, the whole one by nothing."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


NAMES = {name_of(path): path for path in MODULES}


def imports(path: Path) -> set[str]:
    """Modules of this package that a file imports, wherever in the file, also where only types are checked."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name.removeprefix("pflbench.") in NAMES else node.module for name in inner}
    return {name.removeprefix("pflbench.") for name in found if name.startswith("pflbench.")}


def test_the_top_holds_nothing_but_the_wings():
    here = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    files = {"__init__.py", "cli.py", "py.typed", *(f"{face}.py" for face in FACES)}
    assert here - files == set(WINGS) - {"cli", *FACES}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_downwards(path):
    own = name_of(path).split(".")[0]
    if own:
        upwards = {name for name in imports(path) if WINGS.index(name.split(".")[0]) < WINGS.index(own)}
        assert not upwards


def test_there_is_no_circle():
    TopologicalSorter({name: imports(path) - {name} for name, path in NAMES.items()}).prepare()


@pytest.mark.parametrize("wing", [wing for wing in WINGS if (PACKAGE / wing).is_dir()])
def test_a_wing_says_what_lives_there_and_is_small(wing):
    text = ast.get_docstring(ast.parse((PACKAGE / wing / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert 2 <= len(text.splitlines()) <= 6
    own = [path for path in (PACKAGE / wing).glob("*.py") if path.name != "__init__.py"]
    assert wing == "baselines" or len(own) <= MOST_FILES, "split it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_tests_mirror_the_wings():
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders <= {".", "gpu", "faults", *WINGS}


@pytest.mark.parametrize("path", sorted((PACKAGE / "baselines").glob("[!_]*.py")), ids=lambda p: p.stem)
def test_a_method_imports_one_thing(path):
    assert imports(path) == {"method"}


READERS = [name for name in NAMES if name.split(".")[0] in ("report", "clock") or name in ("core.measures", "cli")]
PLANNERS = ["core.registry", "core.files", "core.streams", "data.datasets", "data.partitions", "data.splits"]
PLANNERS += [
    "baselines",
    "engine.memory",
    "experiment.experiment",
    "experiment.store",
    "study.audit",
    "study.grid",
    "study.workload",
]
PLANNERS += ["live.rehearsal", "experiment.machine", "experiment.schedules", "study.audit"]


@pytest.mark.parametrize("name", [*READERS, *PLANNERS])
def test_readers_do_not_need_torch(name):
    code = f"import sys; import pflbench.{name}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_one_place_knows_many_clients():
    """vmap and CUDA graphs appear in the engine wing, nowhere else."""
    users = {name_of(path).split(".")[0] for path in MODULES if "func.vmap" in path.read_text(encoding="utf-8")}
    assert users <= {"engine", "core"}
    assert [name_of(path) for path in MODULES if "CUDAGraph" in path.read_text(encoding="utf-8")] == ["engine.captured"]


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if name_of(path).split(".")[0] in ("core", "baselines", "models", "engine", "clock")],
)
def test_chance_and_time_are_arguments(path):
    """No global seed, default generator or clock below the experiment."""
    text = path.read_text(encoding="utf-8")
    words = ("default_rng()", "np.random.seed", "import random", "import time", "os.environ")
    assert not [word for word in words if word in text]
    assert "manual_seed" not in text or name_of(path) == "models.zoo"  # of first weights, from a given seed


def test_help_is_fast_because_it_loads_no_torch():
    code = "import sys; import pflbench.cli; assert not {'torch', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_pages_lie_beside_their_methods():
    there = {each.name for each in files("pflbench.baselines").iterdir()}
    assert {f"{name[:-3]}.md" for name in there if name.endswith(".py") and not name.startswith("_")} <= there
