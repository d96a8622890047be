"""Files that appear whole or not at all, and named tensors in them. Imports no torch until a tensor is stored."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pflbench.core.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


def publish(path: Path, write: Callable[[Path], object]) -> None:
    """What ``write(draft)`` writes, at ``path``: write, fsync, rename. Raises BadInput if the place cannot be written."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise BadInput("output file", path, f"cannot be written: {error.strerror or error}") from None
    finally:
        if draft.parent.is_dir():
            draft.unlink(missing_ok=True)


def publish_bytes(path: Path, write: Callable[..., object]) -> None:
    """As ``publish``, for a ``write(file)`` that takes an open binary file."""

    def through(draft: Path) -> None:
        with draft.open("wb") as file:
            write(file)

    publish(path, through)


def save_state(path: Path, leaves: Mapping[str, "Tensor"], note: dict[str, Any]) -> None:
    """Writes named tensors and a JSON note as one safetensors file, with a checksum over both."""
    from safetensors.torch import save_file

    plain = {name: leaf.detach().cpu().contiguous() for name, leaf in leaves.items()}
    text = json.dumps(note, separators=(",", ":"), allow_nan=False)
    metadata = {"note": text, "checksum": fingerprint(plain, text)}
    publish(path, lambda draft: save_file(plain, draft, metadata))


def load_state(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
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
