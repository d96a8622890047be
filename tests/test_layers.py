"""Who may import whom. Data flows one way; a figure is redrawn without torch; a method file sees one client only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED_IN_METHODS = {"pflbench.tree", "pflbench.local", "pflbench.method", "pflbench.spectral", "torch"}
WITHOUT_TORCH = [
    "stats",
    "timeline",
    "measures",
    "store",
    "plan",
    "fields",
    "errors",
    "streams",
    "splits",
    "cli",
    "replay",
    "rehearsal",
    "grid",
    "gather",
    "draw",
    "style",
    "claims",
    "report",
]


def imports(path: Path) -> set[str]:
    """Modules that a file imports, wherever in the file; ``from pflbench import tree`` counts as pflbench.tree."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = node.module in ("pflbench", "baselines")
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if whole else {node.module}
    return found


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / "baselines").glob("*.py")), ROOT / "pflbench" / "spectral.py"], ids=lambda p: p.stem
)
def test_a_method_sees_one_client_only(path):
    own = {name for name in imports(path) if name.split(".")[0] in ("pflbench", "baselines", "torch")}
    assert {name for name in own if not name.startswith("torch")} <= ALLOWED_IN_METHODS


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_readers_do_not_need_torch(name):
    code = f"import sys; import pflbench.{name}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_nothing_imports_the_command_line():
    for path in (ROOT / "pflbench").rglob("*.py"):
        if path.name != "cli.py" and path.parent.name != "commands":
            assert not {name for name in imports(path) if name.startswith(("pflbench.cli", "pflbench.commands"))}, path


def test_one_place_knows_many_clients():
    """vmap and CUDA graphs appear in the engine, the evaluation and the graph recorder, nowhere else."""
    users = {path.name for path in (ROOT / "pflbench").rglob("*.py") if "func.vmap" in path.read_text()}
    assert users <= {"engine.py", "evaluation.py", "local.py"}
    assert [p.name for p in (ROOT / "pflbench").rglob("*.py") if "CUDAGraph" in p.read_text()] == ["graphs.py"]


def test_chance_and_time_are_arguments():
    """No global seed, default generator or clock below run.py."""
    below = [
        "engine",
        "evaluation",
        "local",
        "method",
        "tree",
        "task",
        "spectral",
        "stats",
        "timeline",
        "partitions",
        "graphs",
    ]
    for name in below:
        text = (ROOT / "pflbench" / f"{name}.py").read_text()
        for forbidden in (
            "manual_seed",
            "default_rng()",
            "np.random.seed",
            "import random",
            "import time",
            "os.environ",
        ):
            assert forbidden not in text, (name, forbidden)


def test_help_is_fast_because_it_loads_no_torch():
    code = "import sys; import pflbench.cli; assert not {'torch', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
