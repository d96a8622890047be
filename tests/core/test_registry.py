"""A user's own code: what identifies it is what was run, helpers included; what is broken is one line."""

import json
from importlib.metadata import EntryPoint

import pytest
from click.testing import CliRunner

from pflbench.baselines import METHODS
from pflbench.cli import main
from pflbench.core import registry
from pflbench.core.errors import BadInput
from pflbench.core.registry import digest_of

METHOD = """
from dataclasses import dataclass
from pflbench.method import Method, sgd
{imports}

@dataclass(frozen=True)
class Mine(Method):
    \"\"\"Mine.\"\"\"
    def init(self, task, p):
        return p, {{}}
    def contribute(self, task, w, c, feed):
        {body}
        return sgd(task.loss, w, feed, task), c
    def generic(self, w):
        return w
    def deploy(self, w, c):
        return None
"""


def write(folder, name="mine.py", imports="", body="pass"):
    (folder / name).write_text(METHOD.format(imports=imports, body=body))
    return str(folder / name)


def digest(path):
    return METHODS.find(path).digest


def test_a_helper_beside_a_method_can_be_imported_and_identifies_it(tmp_path):
    (tmp_path / "helper.py").write_text("from parts.scale import SCALE\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").touch()
    (tmp_path / "parts" / "scale.py").write_text("from .deep import SCALE\n")
    (tmp_path / "parts" / "deep.py").write_text("SCALE = 1\n")
    (tmp_path / "random.py").write_text("raise RuntimeError('not the library')\n")  # the standard library stays
    (tmp_path / "unused.py").touch()
    path = write(
        tmp_path, imports="import random\nimport parts.deep\nfrom helper import SCALE\nassert SCALE == parts.deep.SCALE"
    )
    first = METHODS.find(path)
    assert METHODS.find(path).target is first.target
    (tmp_path / "parts" / "deep.py").write_text("# no other code\nSCALE = 1\n")
    assert digest(path) == first.digest
    (tmp_path / "parts" / "deep.py").write_text("SCALE = 2\n")
    assert digest(path) != first.digest
    assert METHODS.find(path).module.SCALE == 2  # what is identified is what is run, in one process too
    assert first.module.SCALE == 1
    before = digest(path)
    (tmp_path / "unused.py").write_text("X = 1\n")
    assert digest(path) == before


def test_a_method_of_one_file_is_identified_by_it_alone(tmp_path):
    path = write(tmp_path)
    assert digest(path) == digest_of((tmp_path / "mine.py").read_bytes())


def test_two_methods_with_a_helper_of_one_name(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "helper.py").write_text(f"NAME = {name!r}\n")
    paths = [write(tmp_path / name, imports="from helper import NAME") for name in "ab"]
    assert [METHODS.find(path).module.NAME for path in paths] == ["a", "b"]
    assert digest(paths[0]) != digest(paths[1])


def test_what_is_imported_later_would_not_identify_a_run(tmp_path):
    (tmp_path / "helper.py").touch()
    path = write(tmp_path, body="import helper")
    target = METHODS.find(path).target
    with pytest.raises(ImportError, match="import helper at the top of the file"):
        target().contribute(None, None, None, None)


@pytest.mark.parametrize(
    "broken", ["import sys; sys.exit()", "raise SystemExit(0)", "1 / 0", "import nowhere_at_all", "(", "\0"]
)
def test_a_file_that_cannot_be_run_is_one_line(tmp_path, broken, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for method, helper in ((broken, ""), ("import helper", broken)):
        (tmp_path / "helper.py").write_text(helper)
        write(tmp_path, imports=method)
        outcome = CliRunner().invoke(main, ["run", "--method", "./mine.py"])
        assert outcome.exit_code == 2
        (line,) = outcome.stderr.splitlines()
        assert "method = mine.py: cannot be imported: " in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["helper.py", "mine.py"]
    write(tmp_path)
    assert digest("./mine.py")  # once mended, it is found


def install(monkeypatch, request, folder, value, name="theirs"):
    point = EntryPoint(name=name, value=value, group="pflbench.methods")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    monkeypatch.syspath_prepend(folder)
    for cached in (registry.plugins, registry.package_digest):
        cached.cache_clear()
        request.addfinalizer(cached.cache_clear)


def test_an_installed_plug_in_is_identified_by_its_whole_package(tmp_path, monkeypatch, request):
    package = tmp_path / "theirs_pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "sums.py").write_text("X = 1\n")
    write(package, imports="from .sums import X\n__file__ = '/dev/null'")
    install(monkeypatch, request, tmp_path, "theirs_pkg.mine")
    first = digest("theirs")
    (package / "sums.py").write_text("X = 2\n")
    assert digest("theirs") == first  # this process has run the old code
    registry.package_digest.cache_clear()  # another one
    assert digest("theirs") != first


def test_an_installed_plug_in_with_a_name_of_ours_is_told_and_neither_is_taken(tmp_path, monkeypatch, request):
    """It was ignored without a word: who had installed it got our numbers."""
    write(tmp_path)
    install(monkeypatch, request, tmp_path, "mine", name="ditto")
    line = "method = ditto: is the name of the installed plug-in mine and of pflbench's own; rename or uninstall the plug-in"
    with pytest.raises(BadInput) as told:
        METHODS.find("ditto")
    assert str(told.value) == line
    outcome = CliRunner().invoke(main, ["run", "--method", "ditto", "--results", str(tmp_path / "results")])
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (2, "", f"pflbench: {line}\n")
    assert not (tmp_path / "results").exists()
    assert METHODS.find("fedavg").digest is None  # nobody else is concerned
    listed = CliRunner().invoke(main, ["list", "methods"])
    assert (listed.exit_code, listed.stderr) == (0, f"pflbench: {line}\n")
    assert "fedavg" in listed.stdout


@pytest.mark.parametrize("broken", ["raise SystemExit(0)", "1 / 0", "("])
def test_a_broken_installed_plug_in_takes_nothing_else_down(tmp_path, monkeypatch, request, broken):
    (tmp_path / f"broken_{len(broken)}.py").write_text(broken)
    install(monkeypatch, request, tmp_path, f"broken_{len(broken)}")
    outcome = CliRunner().invoke(main, ["list", "methods"])
    assert outcome.exit_code == 0, outcome.exception
    assert "fedavg" in outcome.stdout
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("pflbench: method = theirs: the installed plug-in broken_")
    with pytest.raises(BadInput, match="cannot be used"):
        METHODS.find("theirs")


def test_a_result_of_a_method_with_a_helper_is_another_when_the_helper_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helper.py").write_text("X = 1\n")
    write(tmp_path, imports="from helper import X")
    command = ["run", "--method", "./mine.py", "--clients", "4", "--rounds", "1", "--epochs", "1", "--json"]
    first, again = (json.loads(CliRunner().invoke(main, command).stdout) for _ in range(2))
    (tmp_path / "helper.py").write_text("X = 2\n")
    other = json.loads(CliRunner().invoke(main, command).stdout)
    assert (first["cached"], again["cached"], other["cached"]) == (False, True, False)
    assert first["address"] == again["address"] != other["address"]
