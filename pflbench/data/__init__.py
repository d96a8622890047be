"""Data sets: one module of this package each, found by its file name; a name that starts with "_" is a helper.

A data set's module has a docstring and one of two forms.

* ``load(root: Path | None) -> Samples`` and, where there is something to fetch, ``prepare(root: Path) -> None`` and
  ``files(root: Path) -> list[Path]``, what it fetched.
* ``source(root: Path, *, fields) -> Source``: images to be read once, into a memory-mapped file (``_cache``); may use
  the network. Optionally ``at_hand(root: Path) -> Source | None``: official files in ``root`` that a run may read as
  they are, without a network, and ``files(root: Path) -> list[Path]``, which these are. A data set with fields
  is identified by its content, and so is a copy of one without that is not made of official files; else by its name.

Listing them imports none, and so neither torch. ``load`` never touches a network.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pflbench import fields
from pflbench.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from pflbench.data._images import Source


OFFICIAL = "official files"  # how the origin of a data set begins whose every file has the published checksum


@dataclass(frozen=True, eq=False)
class Samples:
    """A data set in memory. Pixels stay uint8 until a batch is made; ``mean`` and ``std`` are of pixels / 255."""

    name: str  # as one would type it
    train_x: "Tensor"  # uint8[n, channels, height, width], 0 to 255
    train_y: "Tensor"  # int64[n], 0 to classes - 1
    test_x: "Tensor"  # as train_x
    test_y: "Tensor"  # as train_y
    classes: int
    mean: tuple[float, ...]  # per channel, over train_x
    std: tuple[float, ...]  # per channel, over train_x
    source: str  # where the numbers come from, for a result's provenance
    train_users: "Tensor | None" = None  # int64[n], 0 to users - 1: whose image it is, where the data say so
    test_users: "Tensor | None" = None  # as train_users; -1 for a user without training images
    user: str = ""  # the column that train_users and test_users come from


@dataclass(frozen=True)
class Prepared:
    """One prepared data set on disk. label: as one would type it. whole: every byte is what its checksum says."""

    label: str
    path: Path
    images: tuple[int, int] | None  # to train, to test
    bytes: int
    checksum: str
    whole: bool


def names() -> list[str]:
    """The data sets there are, in alphabetical order."""
    return sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))


def describe(name: str) -> str:
    """The docstring of a data set's module, read without importing it. Raises BadInput for an unknown name."""
    spec = find_spec(_path(name))
    assert spec is not None
    assert spec.origin is not None
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""


def parse(text: str) -> tuple[str, dict[str, str]]:
    """``"hf:OWNER/NAME,size=28"`` -> ``("hf", {"path": "OWNER/NAME", "size": "28"})``: what has no "=" is the path."""
    name, sign, rest = text.partition(":")
    bare = rest and "=" not in rest.split(",")[0]
    return fields.parse(f"{name}{sign}{'path=' if bare else ''}{rest}", "dataset")


def spell(name: str, values: Mapping[str, Any]) -> str:
    """All fields of a data set as text that ``parse`` reads; those at their default are left out."""
    rows = fields.describe(target(name))
    told = ",".join(f"{row.name}={values[row.name]}" for row in rows if values[row.name] != row.default)
    return f"{name}:{told}" if told else name


def target(name: str) -> Callable[..., Any]:
    """The function whose keyword-only arguments are the data set's fields. Raises BadInput for an unknown name."""
    module = _module(name)
    function: Callable[..., Any] = module.source if hasattr(module, "source") else module.load
    return function


def resolve(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a data set, checked, defaults for the rest. Raises BadInput."""
    return fields.resolve(target(name), given, f"dataset {name}")


def digest(name: str, given: Mapping[str, Any], root: Path | None) -> str | None:
    """What identifies the content of a prepared data set: 16 hex digits; None where the name does, as for official files.

    Raises BadInput.
    """
    from pflbench.data import _cache

    values = resolve(name, given)
    if not values:  # official files are what the name says; a copy from elsewhere may be anything
        path = None if root is None else _cache.path_of(root, name, values)
        if path is None or not path.exists() or _cache.card_of(path)["origin"].startswith(OFFICIAL):
            return None
    checksum: str = _cache.card_of(_prepared(name, values, root))["checksum"]
    return checksum[:16]


def load(name: str, root: Path | None, given: Mapping[str, Any] | None = None) -> Samples:
    """The named data set from the folder ``root``; raises BadInput for unknown names and for missing or bad files."""
    module, values = _module(name), resolve(name, given or {})
    if not hasattr(module, "source"):
        samples = module.load(root)
        assert isinstance(samples, Samples)
        return samples
    from pflbench.data import _cache

    label = spell(name, values)
    source = None
    if root is not None and hasattr(module, "at_hand") and not _cache.path_of(root, name, values).exists():
        source = module.at_hand(root)
    if source is not None:
        return _cache.in_memory(_fit(source, label), label)
    return _cache.load(_prepared(name, values, root), label)


def prepare(
    name: str,
    root: Path,
    given: Mapping[str, Any] | None = None,
    watch: Callable[[int, int], object] = lambda done, total: None,
) -> None:
    """Fetches the named data set into ``root`` unless it is there, whole; ``watch``: told of images done and in all.

    Raises BadInput if there is nothing to fetch or it cannot be done.
    """
    module, values = _module(name), resolve(name, given or {})
    if hasattr(module, "source"):
        from pflbench.data import _cache

        _cache.prepare(root, name, values, lambda: _fit(module.source(root, **values), spell(name, values)), watch)
    elif hasattr(module, "prepare"):
        module.prepare(root)
    else:
        raise BadInput("dataset", name, "comes with the package: there is nothing to prepare")


def listing(root: Path) -> list[Prepared]:
    """What is prepared in ``root``, every byte of it read."""
    from pflbench.data import _cache

    return sorted([*_cache.listing(root), *_fetched(root)], key=lambda row: row.label)


def _fetched(root: Path) -> list[Prepared]:
    """The data sets that are used as their files come; checksum: SHA-256 of the files one after another."""
    rows = []
    for name in names():
        module = _module(name)
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


def moments(images: "Tensor") -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of images[n, channels, height, width] / 255, to float64 rounding."""
    values = range(256)
    counted = [[0] * 256 for _ in range(images.shape[1])]
    for first in range(0, len(images), 1024):  # counting needs 8 bytes a pixel
        for channel, counts in enumerate(counted):
            new = images[first : first + 1024, channel].flatten().bincount(minlength=256).tolist()
            counted[channel] = [old + more for old, more in zip(counts, new, strict=True)]
    mean, std = [], []
    for counts in counted:
        total, first = sum(counts), sum(v * c for v, c in zip(values, counts, strict=True))
        second = sum(v * v * c for v, c in zip(values, counts, strict=True))
        mean.append(first / total / 255)
        std.append((second * total - first * first) ** 0.5 / total / 255)
    return tuple(mean), tuple(std)


def _fit(source: "Source", label: str) -> "Source":
    """``source``, if something can be learned from it. Raises BadInput."""
    if len(set(source.train.labels.tolist())) < 2:
        raise BadInput("dataset", label, "holds one class only; needs two or more")
    if not len(source.test.labels):
        raise BadInput("dataset", label, "holds no test images")
    return source


def _prepared(name: str, values: Mapping[str, Any], root: Path | None) -> Path:
    """Where the prepared data set lies. Raises BadInput, with the way out, if it is not there."""
    from pflbench.data import _cache

    cure = f"run `pflbench prepare {spell(name, values)} --data-root {root or 'DIR'}`"
    if root is None:
        raise BadInput("data_root", "missing", f"give --data-root DIR or set PFLBENCH_DATA; to fetch the files, {cure}")
    path = _cache.path_of(root, name, values)
    if not path.exists():
        raise BadInput("data_root", root, f"{spell(name, values)} is not prepared there; {cure}")
    return path


def _module(name: str) -> ModuleType:
    return import_module(_path(name))


def _path(name: str) -> str:
    return f"{__name__}.{fields.pick(name, names(), 'dataset')}"
