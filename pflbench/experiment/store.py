"""Results on disk: each appears whole or not at all."""

import json
import tempfile
from pathlib import Path

from pflbench.core.errors import BadInput
from pflbench.core.files import publish as publish_file
from pflbench.core.measures import Record


def result_path(results: Path, method: str, address: str) -> Path:
    """``results/<method>/<address>.json``; a method given as a file is filed under its stem."""
    return results / Path(method).stem / f"{address}.json"


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
    """Reads a result. Raises BadInput if it is missing, not whole, or filed under another address."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found = record["address"]
    except FileNotFoundError:
        raise BadInput("result", path, "no such result; run the experiment first") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput("result", path, f"is corrupt ({type(error).__name__}); delete it and run again") from None
    if found != path.stem:
        raise BadInput("result", path, f"holds address {found}; delete it and run again")
    assert isinstance(record, dict)
    return record


def find(results: Path, address: str) -> Path:
    """The result whose address starts with ``address``, below ``results``. Raises BadInput if none or several do."""
    found = sorted(results.glob(f"**/{address}*.json")) if address.isalnum() else []
    if len(found) != 1:
        several = ", ".join(path.stem for path in found[:5])
        raise BadInput(
            "address", address, f"ambiguous below {results}: {several}" if found else f"no such result below {results}"
        )
    return found[0]
