"""A walk over a store: every file in it is a whole result, or belongs to one, or is a fault. Imports no torch but for models."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from pflbench.core import files
from pflbench.core.errors import BadInput, printable
from pflbench.core.fields import canonical
from pflbench.core.measures import Record
from pflbench.experiment import store
from pflbench.experiment.record import unsealed
from pflbench.study.grid import ENDINGS

ADDRESS = re.compile(r"[0-9a-f]{16}")
MODELS = ".safetensors"
DERIVED = (*ENDINGS.values(), MODELS)
PAGES = (".md",)  # for people to read


@dataclass
class Audit:
    """What a store holds. faults: one line each, by path. seen: address -> a result of it, and the hash of what it says."""

    sealed: int = 0
    unsealed: int = 0
    faults: list[str] = field(default_factory=list)
    seen: dict[str, tuple[Path, str]] = field(default_factory=dict)


def audit(results: Path) -> Audit:
    """Every file below ``results``. Raises BadInput if it holds neither a result nor a fault."""
    found = Audit()
    for path in _walk(results, found):
        fault = _fault(path, found)
        if fault is not None:
            found.faults.append(printable(f"{path}: {fault}"))
    if not found.seen and not found.faults:
        raise BadInput("results", results, "holds no result")
    return found


def _walk(results: Path, found: Audit) -> Iterator[Path]:
    """Every file and link, folder by folder, in the order of their names."""

    def unread(error: OSError) -> None:
        found.faults.append(printable(f"{error.filename}: cannot be read: {error.strerror}"))

    for folder, inner, names in os.walk(results, onerror=unread):
        inner.sort()
        links = [name for name in inner if Path(folder, name).is_symlink()]
        yield from (Path(folder, name) for name in sorted([*names, *links]))


def _fault(path: Path, found: Audit) -> str | None:
    """What is wrong with one file, if anything is."""
    if path.is_symlink() or not path.is_file():
        return "is no plain file; links are not followed"
    stem, ending = path.name.partition(".")[0], path.suffix
    if path.name.startswith("."):
        return _left(path)
    if ending in PAGES:
        return None
    if ending == ".json":
        return _result(path, found)
    if ADDRESS.fullmatch(stem) and path.name.removeprefix(stem) in DERIVED:
        if not path.with_name(f"{stem}.json").is_file():
            return "belongs to a result that is not there"
        return _models(path, stem) if path.name == stem + MODELS else None
    return "is no result, and belongs to none"


def _left(path: Path) -> str | None:
    """A hidden file: what a run keeps while it goes on, which is a fault once no living process has it."""
    stem = path.name[1:].partition(".")[0]
    result = path.with_name(f"{stem}.json")
    if ending := next((each for each in (".lock", ".checkpoint") if path.name == f".{stem}{each}"), None):
        if files.held(store.lock_path(result)):
            return None
        if ending == ".lock":
            return "a lock that a killed run left; the same run removes it"
        if result.exists():
            return "a checkpoint of a run that is finished; the same run removes it"
        return "a checkpoint of a run that stopped; the same run goes on from there"
    if path.suffix == ".draft":
        return "a draft that a killed process left; the next write here removes it" if files.left(path) else None
    return "is no result, and belongs to none"


def _result(path: Path, found: Audit) -> str | None:
    if not ADDRESS.fullmatch(path.stem):
        return "is no result: it is not named by an address"
    try:
        record = store.load(path)
    except BadInput as error:
        return error.allowed
    if unsealed(record):
        found.unsealed += 1
    else:
        found.sealed += 1
    method = store.result_path(Path(), record["experiment"]["method"]["name"], path.stem).parent.name
    if path.parent.name != method:
        return f"is a result of {method}, and not found in a folder of another name"
    said = _said(record)
    first, before = found.seen.setdefault(path.stem, (path, said))
    return None if before == said else f"says otherwise than {first}, a result of the same address"


def _said(record: Record) -> str:
    """Hash of what a result says, wherever and whenever it was made."""
    return sha256(canonical({**record, "provenance": None, "seal": None}).encode()).hexdigest()


def _models(path: Path, address: str) -> str | None:
    try:
        _, note = files.load_state(path)
    except BadInput as error:
        return f"kept models: {error.allowed.split(';')[0]}; delete it and run again with --keep-models"
    held = note.get("address") if isinstance(note, dict) else None
    return None if held == address else f"kept models of another run, {held}"
