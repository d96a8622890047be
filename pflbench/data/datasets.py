"""Data sets by name: prepared once, then loaded.

One module of ``sets`` each, found by its file name; or a user's own file. It has a docstring and one of two forms.

* ``load(root: Path | None) -> Samples`` and, where there is something to fetch, ``prepare(root: Path) -> None`` and
  ``files(root: Path) -> list[Path]``, what it fetched.
* ``source(root: Path, *, fields) -> Source``: images to be read once, into a memory-mapped file (``prepared``); may use
  the network. Optionally ``at_hand(root: Path) -> Source | None``: official files in ``root`` that a run may read as
  they are, without a network, and ``files(root: Path) -> list[Path]``, which these are. A data set with fields
  is identified by its content, and so is a copy of one without that is not made of official files; else by its name.
  Optionally ``identity(root: Path, *, fields) -> str``: what tells the files it is made of from others, none decoded.

Listing them imports none, and so neither torch. ``load`` never touches a network.
"""

import ast
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pflbench.core import fields
from pflbench.core.errors import BadInput
from pflbench.core.registry import Modules, Thing
from pflbench.data import sets
from pflbench.data.samples import OFFICIAL, Prepared, Samples

if TYPE_CHECKING:
    from pflbench.data.images import Source


MOST = 30  # classes that are told by name


class _DataSets(Modules):
    def offered(self, module: ModuleType, name: str) -> Any:
        function = getattr(module, "source", None) or getattr(module, "load", None)
        if not callable(function):
            raise BadInput(self.noun, name, "must define a function load or source; see `Extend` in the docs")
        return function

    def parse(self, text: str) -> tuple[str, dict[str, str]]:
        """``"hf:OWNER/NAME,size=28"`` -> ``("hf", {"path": "OWNER/NAME", "size": "28"})``: what has no "=" is the path."""
        name, sign, rest = text.partition(":")
        bare = rest and "=" not in rest.split(",")[0]
        return fields.parse(f"{name}{sign}{'path=' if bare else ''}{rest}", "dataset")

    def text(self, name: str) -> str:
        """The docstring of a data set's module, read without importing it if it is one of this package."""
        if name not in self.own():
            return (self.find(name).module or sets).__doc__ or ""
        source = Path(sets.__file__ or "").with_name(f"{name}.py").read_text(encoding="utf-8")
        return ast.get_docstring(ast.parse(source)) or ""

    stored = True

    def identity(self, thing: Thing, fields: Mapping[str, Any], root: Path | None) -> str | None:
        """Of its content, unless the name says which that is."""
        return _digest(thing, fields, root)

    def maker(self, thing: Thing) -> Callable[..., Samples]:
        """Called with the folder of the data, it gives the samples."""
        return partial(_load, thing)


DATASETS = _DataSets("dataset", sets.__name__)


def spell(name: str, values: Mapping[str, Any]) -> str:
    """All fields of a data set as text that ``parse`` reads; those at their default are left out."""
    rows = fields.describe(DATASETS.get(name))
    told = ",".join(f"{row.name}={values[row.name]}" for row in rows if values[row.name] != row.default)
    return f"{name}:{told}" if told else name


def resolve(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a data set, checked, defaults for the rest. Raises BadInput."""
    return fields.resolve(DATASETS.get(name), given, f"dataset {name}")


def digest(name: str, given: Mapping[str, Any], root: Path | None) -> str | None:
    """What identifies the content of a prepared data set: 16 hex digits; None where the name does, as for official files.

    Raises BadInput.
    """
    return _digest(DATASETS.find(name), resolve(name, given), root)


def load(name: str, root: Path | None, given: Mapping[str, Any] | None = None) -> Samples:
    """The named data set from the folder ``root``; raises BadInput for unknown names and for missing or bad files."""
    return _load(DATASETS.find(name), root, **resolve(name, given or {}))


def _digest(thing: Thing, values: Mapping[str, Any], root: Path | None) -> str | None:
    if not hasattr(thing.module, "source"):
        return thing.digest
    from pflbench.data import prepared

    if not values:  # official files are what the name says; a copy from elsewhere may be anything
        path = None if root is None else _place(root, thing, values)
        if path is None or not path.exists() or prepared.card_of(path)["origin"].startswith(OFFICIAL):
            return None
    checksum: str = prepared.card_of(_prepared(thing, values, root))["checksum"]
    return checksum[:16]


def _load(thing: Thing, root: Path | None, **values: Any) -> Samples:
    module = _module(thing)
    if not hasattr(module, "source"):
        samples = module.load(root, **values)
        if not isinstance(samples, Samples):
            raise BadInput("dataset", thing.name, "its function load must return Samples")
        return samples
    from pflbench.data import prepared

    label = spell(thing.name, values)
    source = None
    if root is not None and hasattr(module, "at_hand") and not _place(root, thing, values).exists():
        source = module.at_hand(root)
    if source is not None:
        return prepared.in_memory(_fit(source, label), label)
    return prepared.load(_prepared(thing, values, root), label)


def prepare(
    name: str,
    root: Path,
    given: Mapping[str, Any] | None = None,
    watch: Callable[[int, int], object] = lambda done, total: None,
    force: bool = False,
) -> str:
    """Fetches the named data set into ``root`` unless it is there, whole; ``watch``: told of images done and in all.

    Where the files that it was made of have changed since, it is made again; ``force``: in any case. Returns why it was
    made again, if it was. Raises BadInput if there is nothing to fetch or it cannot be done.
    """
    thing, values = DATASETS.find(name), resolve(name, given or {})
    module = _module(thing)
    if hasattr(module, "source"):
        from pflbench.data import prepared

        stamp, place = "", _place(root, thing, values)
        if hasattr(module, "identity"):
            with suppress(BadInput):  # they may be gone: what was made of them is not
                stamp = module.identity(root, **values)

        def make() -> "Source":
            return _fit(module.source(root, **values), spell(name, values))

        return prepared.prepare(place, name, values, make, watch, stamp, force)
    if hasattr(module, "prepare"):
        module.prepare(root)
        return ""
    raise BadInput("dataset", name, "comes with the package: there is nothing to prepare")


def told(name: str, root: Path, given: Mapping[str, Any], samples: Samples) -> list[str]:
    """What a prepared data set holds and what was left out, in lines."""
    from pflbench.data import prepared

    path = _place(root, DATASETS.find(name), resolve(name, given))
    card = prepared.card_of(path) if path.is_file() else {"names": [], "left_out": []}
    train, test = (part.bincount(minlength=samples.classes).tolist() for part in (samples.train_y, samples.test_y))
    names = card["names"] or list(map(str, range(samples.classes)))
    each = [f"{name} ({a} + {b})" for name, a, b in zip(names, train, test, strict=True)]
    more = [f"... and {len(each) - MOST} more"] if len(each) > MOST else []
    lines = [f"{samples.classes} classes (images to train + test): {', '.join([*each[:MOST], *more])}"]
    untrained = [name for name, count in zip(names, train, strict=True) if not count]
    if untrained:
        lines.append(f"{len(untrained)} classes are never trained: {', '.join(untrained[:MOST])}")
    return lines + ([f"left out: {'; '.join(card['left_out'])}"] if card["left_out"] else [])


def listing(root: Path) -> list[Prepared]:
    """What is prepared in ``root``, every byte of it read."""
    from pflbench.data import prepared

    rows = []
    for path, card, whole in prepared.listing(root):
        label, images, checksum = path.stem, None, ""
        if card is not None:
            images, checksum = tuple(card["images"]), card["checksum"]
            with suppress(BadInput, KeyError):  # made by a user's own file that is no longer there
                label = spell(card["name"], card["fields"])
        rows.append(Prepared(label, path, images, path.stat().st_size, checksum, whole))
    return sorted([*rows, *_fetched(root)], key=lambda row: row.label)


def _fetched(root: Path) -> list[Prepared]:
    """The data sets that are used as their files come; checksum: SHA-256 of the files one after another."""
    rows = []
    for name in DATASETS.own():
        module = _module(DATASETS.find(name))
        paths = module.files(root) if hasattr(module, "files") else []
        if paths:
            total = sha256()
            for path in paths:
                with path.open("rb") as file:
                    while block := file.read(2**20):
                        total.update(block)
            try:
                images = _counted(module, root)
            except BadInput:
                images = None
            size = sum(path.stat().st_size for path in paths)
            rows.append(Prepared(name, paths[0].parent, images, size, total.hexdigest(), images is not None))
    return rows


def _counted(module: ModuleType, root: Path) -> tuple[int, int]:
    """Images to train and to test in the official files in ``root``. Raises BadInput if they are damaged."""
    if hasattr(module, "at_hand"):
        source = module.at_hand(root)
        return len(source.train.labels), len(source.test.labels)
    samples = module.load(root)
    return len(samples.train_y), len(samples.test_y)


def _fit(source: "Source", label: str) -> "Source":
    """``source``, if something can be learned from it. Raises BadInput."""
    if len(set(source.train.labels.tolist())) < 2:
        raise BadInput("dataset", label, "holds one class only; needs two or more")
    if not len(source.test.labels):
        raise BadInput("dataset", label, "holds no test images")
    return source


def _place(root: Path, thing: Thing, values: Mapping[str, Any]) -> Path:
    """Where the prepared data set lies or will lie; what other code prepared is another."""
    from pflbench.data import prepared

    more = {"code": thing.digest} if thing.digest else {}
    return prepared.path_of(root, Path(thing.name).stem, {**values, **more})


def _prepared(thing: Thing, values: Mapping[str, Any], root: Path | None) -> Path:
    """Where the prepared data set lies. Raises BadInput, with the way out, if it is not there."""
    name = spell(thing.name, values)
    cure = f"run `pflbench prepare {name} --data-root {root or 'DIR'}`"
    if root is None:
        raise BadInput("data_root", "missing", f"give --data-root DIR or set PFLBENCH_DATA; to fetch the files, {cure}")
    path = _place(root, thing, values)
    if not path.exists():
        raise BadInput("data_root", root, f"{name} is not prepared there; {cure}")
    return path


def _module(thing: Thing) -> ModuleType:
    assert thing.module is not None
    return thing.module
