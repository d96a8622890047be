"""Data sets: one module of this package each, found by its file name; a name that starts with "_" is a helper.

A data set's module has a docstring, ``load(root: Path | None) -> Samples`` and, where there is something to fetch,
``prepare(root: Path) -> None``. Listing them imports none, and so neither torch.
"""

import ast
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from pflbench.errors import BadInput
from pflbench.fields import pick

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Samples:
    """A data set in memory. Pixels stay uint8 until a batch is made; ``mean`` and ``std`` are of pixels / 255."""

    name: str
    train_x: "Tensor"  # uint8[n, channels, height, width], 0 to 255
    train_y: "Tensor"  # int64[n], 0 to classes - 1
    test_x: "Tensor"  # as train_x
    test_y: "Tensor"  # as train_y
    classes: int
    mean: tuple[float, ...]  # per channel, over train_x
    std: tuple[float, ...]  # per channel, over train_x
    source: str  # where the numbers come from, for a result's provenance


def names() -> list[str]:
    """The data sets there are, in alphabetical order."""
    return sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))


def describe(name: str) -> str:
    """The docstring of a data set's module, read without importing it. Raises BadInput for an unknown name."""
    spec = find_spec(_module(name))
    assert spec is not None
    assert spec.origin is not None
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""


def load(name: str, root: Path | None) -> Samples:
    """The named data set from the folder ``root``; raises BadInput for an unknown name and for missing or bad files."""
    samples = import_module(_module(name)).load(root)
    assert isinstance(samples, Samples)
    return samples


def prepare(name: str, root: Path) -> None:
    """Fetches the named data set into ``root``; raises BadInput if there is nothing to fetch or it cannot be done."""
    module = import_module(_module(name))
    if not hasattr(module, "prepare"):
        raise BadInput("dataset", name, "comes with the package: there is nothing to prepare")
    module.prepare(root)


def moments(images: "Tensor") -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of images[n, channels, height, width] / 255, to float64 rounding."""
    values = range(256)
    mean, std = [], []
    for channel in images.transpose(0, 1):
        counts = channel.flatten().bincount(minlength=256).tolist()
        total, first = sum(counts), sum(v * c for v, c in zip(values, counts, strict=True))
        second = sum(v * v * c for v, c in zip(values, counts, strict=True))
        mean.append(first / total / 255)
        std.append((second * total - first * first) ** 0.5 / total / 255)
    return tuple(mean), tuple(std)


def _module(name: str) -> str:
    return f"{__name__}.{pick(name, names(), 'dataset')}"
