"""Results and checkpoints on disk: each appears whole or not at all. Nothing here imports torch until a state is stored."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pflbench.errors import BadInput
from pflbench.files import publish as publish_file

if TYPE_CHECKING:
    from torch import Tensor

Record = dict[str, Any]


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


def save_state(path: Path, leaves: Mapping[str, "Tensor"], note: Record) -> None:
    """Writes named tensors and a JSON note as one safetensors file, with a checksum over both."""
    from safetensors.torch import save_file

    plain = {name: leaf.detach().cpu().contiguous() for name, leaf in leaves.items()}
    text = json.dumps(note, separators=(",", ":"), allow_nan=False)
    metadata = {"note": text, "checksum": fingerprint(plain, text)}
    publish_file(path, lambda draft: save_file(plain, draft, metadata))


def load_state(path: Path) -> tuple[dict[str, "Tensor"], Record]:
    """Reads what ``save_state`` wrote. Raises BadInput if a bit of it has changed."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            leaves = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        intact = fingerprint(leaves, metadata["note"]) == metadata["checksum"]
    except Exception as error:
        raise BadInput("checkpoint", path, f"is corrupt ({type(error).__name__}); delete it to start over") from None
    if not intact:
        raise BadInput("checkpoint", path, "is corrupt (checksum differs); delete it to start over")
    return leaves, json.loads(metadata["note"])


def fingerprint(leaves: Mapping[str, "Tensor"], text: str = "") -> str:
    """SHA-256 over names, shapes, types and bytes of named tensors, in the order of their names, and ``text``."""
    total = hashlib.sha256(text.encode())
    for name in sorted(leaves):
        leaf = leaves[name].detach().cpu().contiguous()
        total.update(f"{name}:{leaf.dtype}:{tuple(leaf.shape)}".encode())
        total.update(leaf.numpy().data)
    return total.hexdigest()
