"""Any image set of Hugging Face: hf:OWNER/NAME, or hf:path=OWNER/NAME,image=COLUMN,label=COLUMN,user=COLUMN,...

``pflbench prepare`` reads the folder OWNER/NAME of the data root if there is one (a copy of the data set's repository),
and downloads it otherwise. Columns are found if they are not named: the image by its type, the label by its type or
name, the user (whose image it is, for the partition ``natural``) by its name. Without a test split a fifth of the images
is held back, of every user if there are users, of every class if not.
"""

import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np

from pflbench.core.errors import BadInput
from pflbench.core.fields import hyper, pick
from pflbench.data.images import (
    Colour,
    Numbers,
    Part,
    Size,
    Source,
    SplitSeed,
    coded,
    decode,
    shape_of,
    split_off,
    stamp_of,
)

LABELS = ("label", "labels", "target", "class")
USERS = ("writer_id", "user_id", "user", "client_id", "client", "speaker_id")
FOUND = "found if not given"


def source(
    root: Path,
    *,
    path: Annotated[str, hyper("OWNER/NAME of the data set")],
    config: Annotated[str, hyper("configuration of the data set; empty: the default one")] = "",
    revision: Annotated[str, hyper("branch, tag or commit that is downloaded")] = "main",
    train: Annotated[str, hyper("split to train on")] = "train",
    test: Annotated[
        str,
        hyper("split to test on; empty: test if there is one; none, or no such split: a fifth of the training split"),
    ] = "",
    image: Annotated[str, hyper(f"column of the images; {FOUND}")] = "",
    label: Annotated[str, hyper(f"column of the labels; {FOUND}")] = "",
    user: Annotated[str, hyper(f"column of whose image it is; {FOUND}")] = "",
    size: Size = 32,
    colour: Colour = "rgb",
    split_seed: SplitSeed = 0,
) -> Source:
    """uint8[n, channels, size, size]. Raises BadInput."""
    splits = _open(root, path, config, revision)
    names = {"train": pick(train, splits, f"dataset {path}.train")}
    if test != "none" and (test or "test" in splits):
        names["test"] = pick(test or "test", splits, f"dataset {path}.test")
        if names["test"] == train:
            raise BadInput(f"dataset {path}.test", test or "test", "is what is trained on; name another split, or none")
    features = splits[train].features
    image = _image_column(features, image, path)
    label = _label_column(features, label, path)
    user = _user_column(features, user, path)
    tables = {part: splits[name] for part, name in names.items()}
    for part, table in tables.items():
        for column in filter(None, (image, label, user)):
            pick(column, table.features, f"dataset {path}, split {names[part]}")
            if column in (label, user) and not _countable(table.features[column]):
                raise BadInput(
                    f"dataset {path}, column", column, "holds neither numbers nor text, so no labels or users"
                )
    values = {part: list(table[label]) for part, table in tables.items()}
    known = _classes(features[label], values)
    users = sorted({u for u in tables["train"][user] if u is not None}) if user else None
    parts = {
        part: Part(
            _labels(values[part], known, f"{path}, split {names[part]}"),
            _Decoder(table, image, size, colour, f"{path}, split {names[part]}").image,
            None if users is None else coded(table[user], users)[0],
        )
        for part, table in tables.items()
    }
    origin, stamp = f"Hugging Face {path}, revision {revision}", identity(root, path=path)
    first, second = (parts["train"], parts["test"]) if "test" in parts else split_off(parts["train"], split_seed)
    return Source(first, second, len(known), shape_of(size, colour), origin, user, stamp=stamp)


def identity(root: Path, *, path: str, **rest: object) -> str:
    """Of a copy in the data root: names, sizes and times of its files. What is on Hugging Face, its revision identifies."""
    copy = root / path
    return stamp_of(copy, (file for file in copy.rglob("*") if file.is_file())) if copy.is_dir() else ""


class _Decoder:
    """Row number -> pixels. table: a ``datasets.Dataset`` whose column ``column`` holds encoded images."""

    def __init__(self, table: Any, column: str, size: int, colour: str, place: str) -> None:
        from datasets import Image

        try:
            self._cells = table.select_columns([column]).cast_column(column, Image(decode=False))
        except Exception as error:
            raise BadInput(f"dataset {place}.image", column, f"does not hold images ({_line(error)})") from None
        self._column, self._size, self._colour, self._place = column, size, colour, place

    def image(self, row: int) -> Any:
        cell, place = self._cells[row][self._column], f"{self._place}, row {row}"
        if cell is None or not (cell["bytes"] or cell["path"]):
            raise BadInput("image", place, "is missing")
        return decode(cell["bytes"] or Path(cell["path"]), self._size, self._colour, place)


def _open(root: Path, path: str, config: str, revision: str) -> dict[str, Any]:
    """Split name -> ``datasets.Dataset``. What is downloaded stays in ``root``, so that it is fetched once."""
    from datasets import load_dataset

    copy = root / path
    local = copy.is_dir()
    try:
        if not local:
            return dict(load_dataset(path, config or None, revision=revision, cache_dir=str(root / "huggingface")))
        with _scratch(root) as temporary:  # mapped files live on until they are closed
            return dict(load_dataset(str(copy), config or None, cache_dir=temporary))
    except Exception as error:  # from a dozen libraries, each with errors of its own
        place = "the copy in the data root" if local else "Hugging Face"
        raise BadInput("dataset", path, f"cannot be read from {place} ({_line(error)})") from None


@contextmanager
def _scratch(root: Path) -> Iterator[str]:
    """A folder of this process in ``root``, gone afterwards; so is what a killed process left there."""
    for folder in root.glob(".arrow-*"):
        with suppress(ValueError, PermissionError):
            try:
                os.kill(int(folder.name.split("-")[1]), 0)
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)
    with TemporaryDirectory(prefix=f".arrow-{os.getpid()}-", dir=root) as temporary:
        yield temporary


def _line(error: Exception) -> str:
    text = str(error).strip() or str(error.__cause__ or "").strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"


def _countable(feature: Any) -> bool:
    """Whether the values of a column can be told apart and ordered."""
    from datasets import ClassLabel, Value

    return isinstance(feature, ClassLabel | Value)


def _image_column(features: Any, given: str, path: str) -> str:
    from datasets import Image

    if given:
        return pick(given, features, f"dataset {path}.image")
    return _only([name for name, kind in features.items() if isinstance(kind, Image)], features, path, "image")


def _label_column(features: Any, given: str, path: str) -> str:
    from datasets import ClassLabel

    if given:
        return pick(given, features, f"dataset {path}.label")
    typed = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    return _only(typed or [name for name in LABELS if name in features], features, path, "label")


def _user_column(features: Any, given: str, path: str) -> str:
    if given:
        return pick(given, features, f"dataset {path}.user")
    return next((name for name in USERS if name in features), "")


def _only(found: list[str], features: Any, path: str, field: str) -> str:
    if len(found) != 1:
        raise BadInput(
            f"dataset {path}.{field}", "not given", f"name one of {', '.join(found or features)}: {field}=COLUMN"
        )
    return found[0]


def _classes(feature: Any, values: dict[str, list[Any]]) -> list[Any]:
    """The classes as they stand in the label column, in the order of their numbers."""
    from datasets import ClassLabel

    if isinstance(feature, ClassLabel):
        return list(range(feature.num_classes))
    return sorted({value for part in values.values() for value in part if not _missing(value)})


def _missing(value: Any) -> bool:
    """None, or a number that is none."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _labels(values: Iterable[Any], known: list[Any], place: str) -> Numbers:
    labels, _ = coded(values, known)
    if (labels < 0).any():
        row = int(np.flatnonzero(labels < 0)[0])
        raise BadInput("label", f"{place}, row {row}", "is missing: this split cannot be used")
    return labels
