"""Prepared data sets: one memory-mapped file each, which appears whole or not at all.

The file is safetensors: labels, users and uint8 pixels, and a card (JSON in the header) with the fields it was made
with and a SHA-256 over all data. It is written under another name, which no run reads, by one process at a time, and
renamed when it is complete; what a killed preparation left is removed by the next one.
"""

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from pflbench.core.errors import BadInput
from pflbench.core.fields import canonical
from pflbench.data.images import Source, Watch, read_all
from pflbench.data.samples import Samples, moments

FOLDER = "prepared"  # below the data root
ALIGNMENT = 4096  # the data begin at a multiple of so many bytes
ROOM = 1024  # bytes for what a card says once all data are there: moments and checksum
KINDS: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "U8": np.dtype("u1")}
LONGEST = 2**26  # bytes of a header
Card = dict[str, Any]
NEW = {"names", "left_out", "stamp", "seal"}  # of a card, since it has a checksum


class Declared(BaseModel):
    """What a card says. images: to train on, to test on. checksum: SHA-256 of the data; seal: of this and the layout."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    name: str
    fields: dict[str, Any]
    images: list[int] = Field(min_length=2, max_length=2)
    classes: int = Field(ge=2)
    origin: str
    user: str
    names: list[str]
    left_out: list[str]
    stamp: str
    mean: list[float]
    std: list[float]
    checksum: str = Field(pattern="^[0-9a-f]{64}$")
    seal: str


Layout = dict[str, tuple[str, tuple[int, ...]]]  # name -> (kind, shape), in the order of the file


def path_of(root: Path, name: str, fields: Mapping[str, Any]) -> Path:
    """Where the data set ``name`` with all its ``fields`` lies."""
    mark = f"-{hashlib.sha256(canonical(dict(fields)).encode()).hexdigest()[:8]}" if fields else ""
    return root / FOLDER / f"{name}{mark}.safetensors"


def prepare(
    path: Path,
    name: str,
    fields: Mapping[str, Any],
    make: Callable[[], Source],
    watch: Watch,
    stamp: str = "",
    force: bool = False,
) -> str:
    """Publishes what ``make`` returns at ``path``, unless it is there already, whole and made of what ``stamp`` says.

    Returns why it was made again, if it was. Raises BadInput.
    """
    _sweep(path.parent)
    why = ""
    if path.is_file():
        try:
            made = check(path)["stamp"]
            why = "asked for" if force else "" if stamp in ("", made) else "the files that it was made of have changed"
            if not why:
                return ""
        except BadInput as error:
            why = error.allowed
    write(path, name, fields, make(), watch, again=bool(why))
    return why


def listing(root: Path) -> Iterator[tuple[Path, Card | None, bool]]:
    """Every prepared file below ``root``, read to its last byte: its card, if it has one, and whether it is whole."""
    for path in sorted((root / FOLDER).glob("*.safetensors")):
        card, whole = None, False
        with suppress(BadInput):
            card = card_of(path)
            check(path)
            whole = True
        yield path, card, whole


def write(path: Path, name: str, fields: Mapping[str, Any], source: Source, watch: Watch, again: bool = False) -> None:
    """Reads ``source`` and publishes it at ``path``. Raises BadInput, and publishes nothing, if that cannot be done.

    again: also in the place of what is there.
    """
    layout = _layout(source)
    card = {
        "name": name,
        "fields": dict(fields),
        "images": [len(source.train.labels), len(source.test.labels)],
        "classes": source.classes,
        "origin": source.origin,
        "user": source.user,
        "names": list(source.names),
        "left_out": list(source.left_out),
        "stamp": source.stamp,
    }
    start = -(-(len(_header(layout, card)) + ROOM) // ALIGNMENT) * ALIGNMENT
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _draft(path) as file:
            if path.exists() and not again:
                return
            _reserve(file, start + _bytes(layout))
            arrays = _map(file, layout, start)
            for part, which in ((source.train, "train"), (source.test, "test")):
                arrays[f"{which}_y"][:] = part.labels
                if part.users is not None:
                    arrays[f"{which}_users"][:] = part.users
            read_all(source, arrays["train_x"], arrays["test_x"], watch)
            for array in arrays.values():
                array.flush()
            mean, std = moments(torch.from_numpy(arrays["train_x"]))
            card |= {"mean": mean, "std": std, "checksum": _checksum(file, start)}
            card["seal"] = _seal(card, _arrays(layout))
            header = _header(layout, card).ljust(start - 8)
            file.seek(0)
            file.write(len(header).to_bytes(8, "little") + header)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
    except OSError as error:
        raise BadInput("data_root", path.parent, f"cannot be written: {error.strerror or error}") from None


def load(path: Path, label: str) -> Samples:
    """The data set at ``path``, mapped into memory. Raises BadInput if it is not what its checksum says."""
    from safetensors import SafetensorError, safe_open

    card = check(path)
    try:
        with safe_open(path, framework="pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        for which in ("train", "test"):
            if not 0 <= int(held[f"{which}_y"].min()) <= int(held[f"{which}_y"].max()) < card["classes"]:
                raise ValueError("a label is of no class")
            if held[f"{which}_x"].shape[1] != len(card["mean"]) or len(card["mean"]) != len(card["std"]):
                raise ValueError("the moments are of other channels")
    except (SafetensorError, OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise BadInput("prepared data", path, f"is damaged ({error}); prepare it again") from None
    return Samples(
        label,
        held["train_x"],
        held["train_y"],
        held["test_x"],
        held["test_y"],
        classes=card["classes"],
        mean=tuple(card["mean"]),
        std=tuple(card["std"]),
        source=f"{card['origin']}, prepared, SHA-256 {card['checksum'][:16]}",
        train_users=held.get("train_users"),
        test_users=held.get("test_users"),
        user=card["user"],
    )


def card_of(path: Path) -> Card:
    """The card of a prepared file, nothing else of it read."""
    return _open(path)[0]


def check(path: Path) -> Card:
    """The card of a prepared file whose every byte is what its checksum says. Raises BadInput."""
    card, start = _open(path)
    with path.open("rb") as file:
        if _checksum(file, start) != card["checksum"]:
            raise BadInput("prepared data", path, "is damaged (checksum differs); prepare it again")
    return card


def in_memory(source: Source, label: str) -> Samples:
    """The data set, read at once and never written."""
    train, test = (np.empty((len(part.labels), *source.shape), np.uint8) for part in (source.train, source.test))
    read_all(source, train, test, lambda done, total: None)
    mean, std = moments(torch.from_numpy(train))
    x, y, test_x, test_y = map(torch.from_numpy, (train, source.train.labels, test, source.test.labels))
    return Samples(label, x, y, test_x, test_y, source.classes, mean, std, source.origin)


def _layout(source: Source) -> Layout:
    """int64 first, so that each array begins at a multiple of its item size."""
    parts = {"train": source.train, "test": source.test}
    numbers: Layout = {f"{which}_y": ("I64", part.labels.shape) for which, part in parts.items()}
    numbers |= {f"{which}_users": ("I64", p.users.shape) for which, p in parts.items() if p.users is not None}
    return numbers | {f"{which}_x": ("U8", (len(part.labels), *source.shape)) for which, part in parts.items()}


def _reserve(file: IO[bytes], size: int) -> None:
    """Makes ``file`` as long as it will be, on the disk itself: a full one is an error here, not a crash later."""
    file.truncate(size)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)


def _bytes(layout: Layout) -> int:
    return sum(math.prod(shape) * KINDS[kind].itemsize for kind, shape in layout.values())


def _header(layout: Layout, card: Card) -> bytes:
    """The header of a safetensors file, without its length."""
    return json.dumps({"__metadata__": {"card": canonical(card)}, **_arrays(layout)}).encode()


def _arrays(layout: Layout) -> dict[str, Any]:
    """What a header says of the arrays."""
    entries, at = dict[str, Any](), 0
    for name, (kind, shape) in layout.items():
        size = math.prod(shape) * KINDS[kind].itemsize
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return entries


def _seal(card: Card, arrays: Mapping[str, Any]) -> str:
    """SHA-256 of what a card says, the data's checksum in it, and of how the arrays lie; 64 hex digits."""
    told = {name: value for name, value in card.items() if name != "seal"}
    return hashlib.sha256(canonical([told, arrays]).encode()).hexdigest()


def _map(file: IO[bytes], layout: Layout, start: int) -> dict[str, np.memmap[Any, Any]]:
    """The arrays of a file, writable and mapped into memory."""
    arrays = {}
    for name, (kind, shape) in layout.items():
        arrays[name] = np.memmap(file, KINDS[kind], "r+", start, shape)
        start += arrays[name].nbytes
    return arrays


def _open(path: Path) -> tuple[Card, int]:
    """(card, where the data begin). Raises BadInput for what is no prepared file, or whose card was changed."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > min(path.stat().st_size, LONGEST):
                raise ValueError("cut off")
            header = json.loads(file.read(size))
            card = json.loads(header.pop("__metadata__")["card"])
            if not NEW & card.keys():
                raise BadInput("prepared data", path, "was made before cards had a checksum; prepare it again")
            Declared.model_validate(card)
            sealed = card["seal"] == _seal(card, header)
    except BadInput:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput("prepared data", path, f"is damaged ({type(error).__name__}); prepare it again") from None
    if not sealed:
        raise BadInput("prepared data", path, "is damaged (the checksum of its card differs); prepare it again")
    return card, 8 + size


def _checksum(file: IO[bytes], start: int) -> str:
    """SHA-256 of all data, 64 hex digits."""
    file.flush()
    file.seek(start)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _sweep(folder: Path) -> None:
    """Removes the drafts that no process holds any more."""
    for draft in folder.glob(".*.draft"):
        with suppress(OSError), draft.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.unlink()


@contextmanager
def _draft(path: Path) -> Iterator[IO[bytes]]:
    """The file that becomes ``path``, held by this process alone; gone afterwards, unless it was renamed.

    The lock goes with the process, however that ends, so a draft that was left behind stops nobody.
    """
    draft = path.with_name(f".{path.name}.draft")
    draft.touch()
    with draft.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput("prepared data", path, "another process is preparing it") from None
        try:
            yield file
        finally:
            draft.unlink(missing_ok=True)
