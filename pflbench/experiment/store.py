"""Results on disk: each appears whole or not at all."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path

from pflbench.core.errors import BadInput
from pflbench.core.files import alone, sweep
from pflbench.core.files import publish as publish_file
from pflbench.core.measures import Record
from pflbench.core.reading import clean, read_json
from pflbench.experiment.record import check

CURE = "delete it and run again"


def result_path(results: Path, method: str, address: str) -> Path:
    """``results/<method>/<address>.json``; a method given as a file is filed under its stem."""
    return results / Path(method).stem / f"{address}.json"


def checkpoint_path(path: Path) -> Path:
    """Where the checkpoint of the run lies whose result is, or will be, at ``path``."""
    return path.with_name(f".{path.stem}.checkpoint")


def lock_path(path: Path) -> Path:
    """What a process holds while it computes the result at ``path``."""
    return path.with_name(f".{path.stem}.lock")


def tidy(path: Path) -> None:
    """Removes what a killed run left beside the result at ``path``: checkpoint, lock, and drafts that no process writes."""
    checkpoint, lock = checkpoint_path(path), lock_path(path)
    with suppress(OSError, BadInput):  # a folder that is only read is as tidy as it can be
        sweep(path.parent)
        if checkpoint.exists() or lock.exists():
            with alone(lock, _busy):
                checkpoint.unlink(missing_ok=True)


def _busy() -> None:
    raise BadInput("lock", "", "is another process's")


def forget_derived(path: Path) -> None:
    """Removes what was derived from the result that lay at ``path`` before: models, bands, split."""
    for file in path.parent.glob(f"{path.stem}.*"):
        if file != path:
            file.unlink(missing_ok=True)


def writable(results: Path) -> None:
    """Raises BadInput unless files can be made in ``results``."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    except OSError as error:
        raise BadInput("results", results, f"must be a folder that can be written to ({error.strerror})") from None


def publish(path: Path, record: Record) -> None:
    """Writes a result: write, fsync, rename."""
    text = json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n"
    publish_file(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def load(path: Path) -> Record:
    """Reads a result, free of control characters. Raises BadInput if it is missing, not whole, changed since it was
    written, or filed under another address.
    """
    if not path.exists():
        raise BadInput("result", path, "no such result; run the experiment first")
    held = read_json(path, "result", CURE)
    try:
        record = check(held)
    except ValueError as error:
        raise BadInput("result", path, f"is no whole result: {error}; {CURE}") from None
    if record["address"] != path.stem:
        raise BadInput("result", path, f"holds address {record['address']}; {CURE}")
    cleaned: Record = clean(record)
    return cleaned


def find(results: Path, address: str) -> Path:
    """The result whose address starts with ``address``, below ``results``. Raises BadInput if none or several do."""
    found = sorted(results.glob(f"**/{address}*.json")) if address.isalnum() else []
    if len(found) != 1:
        several = ", ".join(path.stem for path in found[:5])
        raise BadInput(
            "address", address, f"ambiguous below {results}: {several}" if found else f"no such result below {results}"
        )
    return found[0]
