"""Methods by name: one file each under ``baselines/``, the method under study, entry points, or a user's own file."""

import ast
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

import baselines
from pflbench.errors import BadInput
from pflbench.fields import pick
from pflbench.method import Method

GROUP = "pflbench.methods"  # entry points: name = "package.module"


def names() -> list[str]:
    """Every method that can be named; baselines, the method under study, then installed plug-ins."""
    own = ["spectral", *(module.name for module in pkgutil.iter_modules(baselines.__path__))]
    return sorted({*own, *_plugins()})


def module_of(name: str) -> ModuleType:
    """The module that defines method ``name``, or the file ``name`` if it ends in ``.py``. Raises BadInput."""
    if name.endswith(".py"):
        return _load_file(Path(name))
    pick(name, names(), "method")
    if name in _plugins():
        return importlib.import_module(_plugins()[name].value)
    return importlib.import_module("pflbench.spectral" if name == "spectral" else f"baselines.{name}")


def method_class(name: str) -> type[Method]:
    """The one subclass of Method that the module of ``name`` defines. Raises BadInput if there is none or more."""
    module = module_of(name)
    found = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Method) and item.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise BadInput("method", name, f"must define exactly one subclass of Method, defines {len(found)}")
    return found[0]


def digest(name: str) -> str | None:
    """Hash of a plug-in's code, comments and layout aside; None for a method of this package, which `MEANING` versions."""
    if not name.endswith(".py") and name not in _plugins():
        return None
    module = module_of(name)
    source = Path(module.__file__ or "").read_text(encoding="utf-8")
    return hashlib.sha256(ast.dump(ast.parse(source)).encode()).hexdigest()[:16]


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise BadInput("method", path, "no such file")
    name = f"pflbench_plugin_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BadInput("method", path, f"cannot be imported: {type(error).__name__}: {error}") from error
    return module
