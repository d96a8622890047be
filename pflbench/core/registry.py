"""Everything that is chosen by name: a method, a data set, a partition, a model, a schedule, a fleet.

A ``Kind`` knows the names of its things and finds what a name stands for: something of this package, something that an
installed package offers as an entry point, or a file of the user's own. All kinds have this one shape, so an experiment
is resolved by one loop, and a world is built from what was found, not from names.
"""

import ast
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from pflbench.core.errors import BadInput
from pflbench.core.fields import parse, pick, resolve


@dataclass(frozen=True)
class Thing:
    """What a name stands for.

    target: the class or function that has the documented fields. module: where it is defined. digest: of the code that
    was loaded, 16 hex digits; None for code of this package, which the release and ``MEANING`` version. content: what
    a file that is no code holds.
    """

    name: str
    target: Any
    module: ModuleType | None = None
    digest: str | None = None
    content: Any = None


@dataclass(frozen=True)
class Chosen:
    """A thing with all its fields, checked. digest: what identifies it where name and fields do not.

    make: the class or function with the fields filled in; it takes what the rest of its arguments are.
    """

    name: str
    fields: dict[str, Any]
    digest: str | None
    make: Callable[..., Any]


class Kind:
    """One kind of thing. A subclass says what this package has (``own``, ``load``) and what a module offers (``offered``)."""

    suffixes: tuple[str, ...] = (".py",)  # how the name of a user's own file ends

    def __init__(self, noun: str) -> None:
        self.noun, self.group = noun, f"pflbench.{noun}s"  # entry points: name = "package.module"

    def own(self) -> Iterable[str]:
        """The names of what comes with this package."""
        raise NotImplementedError

    def load(self, name: str) -> Thing:
        """What comes with this package under ``name``."""
        raise NotImplementedError

    def offered(self, module: ModuleType, name: str) -> Any:
        """The one class or function that a user's module offers. Raises BadInput if there is none, or more."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Every name, in alphabetical order: this package's and those of installed plug-ins."""
        return sorted({*self.own(), *plugins(self.group)})

    def find(self, name: str) -> Thing:
        """What ``name`` stands for, or the file ``name`` holds. Raises BadInput."""
        if name.endswith(self.suffixes):
            return self.open(Path(name))
        if pick(name, self.names(), self.noun) in self.own():
            return self.load(name)
        point = plugins(self.group)[name]
        module = importlib.import_module(point.module)
        target = getattr(module, point.attr) if point.attr else self.offered(module, name)
        return Thing(name, target, module, digest_of(Path(module.__file__ or "").read_bytes()))

    def open(self, path: Path) -> Thing:
        """What the user's own file at ``path`` holds. Raises BadInput."""
        module, digest = load_code(path, self.noun)
        return Thing(str(path), self.offered(module, str(path)), module, digest)

    def get(self, name: str) -> Any:
        """The class or function that ``name`` stands for. Raises BadInput."""
        return self.find(name).target

    def text(self, name: str) -> str:
        """What documents ``name``: the docstring of a function, or that of the module where a class is defined."""
        thing = self.find(name)
        return inspect.getdoc(thing.module if inspect.isclass(thing.target) else thing.target) or ""

    def parse(self, text: str) -> tuple[str, dict[str, str]]:
        """``NAME:field=value,...`` as typed -> name and fields. Raises BadInput."""
        return parse(text, self.noun)

    def choose(
        self,
        name: str,
        given: Mapping[str, Any] | None = None,
        *,
        digest: str | None = None,
        root: Path | None = None,
        others: Mapping[str, Chosen] | None = None,
    ) -> Chosen:
        """The thing ``name`` with all its fields: those given, checked, and defaults for the rest. Raises BadInput.

        digest: what it must have been identified by, if anything. root: folder of the data. others: what the experiment
        has chosen of other kinds so far.
        """
        thing = self.find(self.meant(name, others or {}))
        fields = resolve(thing.target, given or {}, f"{self.noun} {thing.name}")
        known = digest is not None and root is None and self.stored  # a plan may be made where the data are not
        found = digest if known else agreed(thing.name, digest, self.identity(thing, fields, root))
        return Chosen(thing.name, fields, found, partial(self.maker(thing), **fields))

    # What a kind may do otherwise than others

    stored = False  # whether its things lie in the folder of the data

    def meant(self, name: str, others: Mapping[str, Chosen]) -> str:
        """The name that ``name`` stands for, given what the experiment has chosen of other kinds."""
        return name

    def identity(self, thing: Thing, fields: Mapping[str, Any], root: Path | None) -> str | None:
        """What identifies the thing where name and fields do not."""
        return thing.digest

    def maker(self, thing: Thing) -> Callable[..., Any]:
        """What is called with the fields."""
        maker: Callable[..., Any] = thing.target
        return maker


class Functions(Kind):
    """Functions of one table, by name."""

    def __init__(self, noun: str, table: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(noun)
        self.table = table

    def own(self) -> Iterable[str]:
        return self.table

    def load(self, name: str) -> Thing:
        return Thing(name, self.table[name], inspect.getmodule(self.table[name]))

    def offered(self, module: ModuleType, name: str) -> Any:
        return only(
            [item for item in vars(module).values() if inspect.isfunction(item) and not item.__name__.startswith("_")],
            module,
            BadInput(self.noun, name, "must define exactly one function without a leading underscore"),
        )


class Modules(Kind):
    """One module each in one package, by the name of its file; a name that starts with "_" is a helper."""

    def __init__(self, noun: str, package: str) -> None:
        super().__init__(noun)
        self.package = package

    def own(self) -> Iterable[str]:
        folder = Path(sys.modules[self.package].__file__ or "").parent
        return sorted(module.name for module in iter_modules([str(folder)]) if not module.name.startswith("_"))

    def load(self, name: str) -> Thing:
        module = importlib.import_module(f"{self.package}.{name}")
        return Thing(name, self.offered(module, name), module)


def only(found: list[Any], module: ModuleType, otherwise: BadInput) -> Any:
    """The one of ``found`` that ``module`` itself defines. Raises ``otherwise`` if there is none, or more."""
    own = [item for item in found if item.__module__ == module.__name__]
    if len(own) != 1:
        raise otherwise
    return own[0]


def agreed(name: str, asked: str | None, digest: str | None) -> str | None:
    """``digest``, that of the files at hand. Raises BadInput if the experiment asks for another."""
    if asked not in (None, digest):
        raise BadInput(name, digest, f"other files than those of the experiment, {asked}")
    return digest


def digest_of(source: bytes) -> str:
    """Hash of code, comments and layout aside: 16 hex digits. Raises SyntaxError or ValueError for what is no Python."""
    return hashlib.sha256(ast.dump(ast.parse(source)).encode()).hexdigest()[:16]


def load_code(path: Path, noun: str) -> tuple[ModuleType, str]:
    """The module in a user's own file, and the digest of the bytes that were run; a file that was edited is run anew.

    Raises BadInput naming ``noun`` if that cannot be done.
    """
    if not path.is_file():
        raise BadInput(noun, path, "no such file")
    try:
        source = path.read_bytes()
        digest = digest_of(source)
        mark = hashlib.sha256(str(path.resolve()).encode() + source).hexdigest()[:12]
        name = f"pflbench_own_{path.stem}_{mark}"
        if name not in sys.modules:
            module = sys.modules[name] = ModuleType(name)
            module.__file__ = str(path.resolve())
            try:
                exec(compile(source, module.__file__, "exec"), vars(module))
            except BaseException:
                del sys.modules[name]
                raise
    except Exception as error:
        raise BadInput(noun, path, f"cannot be imported: {type(error).__name__}: {error}") from error
    return sys.modules[name], digest


@cache
def plugins(group: str) -> dict[str, EntryPoint]:
    """Entry points of installed packages, by name."""
    return {point.name: point for point in entry_points(group=group)}
