"""Files that appear whole or not at all, and named tensors in them. Imports no torch until a tensor is stored."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pflbench.core.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


def expanded(path: Path) -> Path:
    """``path`` with the user's home for ``~``; as it is where there is none."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def publish(path: Path, write: Callable[[Path], object]) -> None:
    """What ``write(draft)`` writes, at ``path``: write, fsync, rename. Raises BadInput if the place cannot be written.

    A draft that was left behind, because its process was killed, is removed by the next one that writes into the folder.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        with _held(draft):
            write(draft)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(path)
    except OSError as error:
        raise BadInput("output file", path, f"cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def _held(draft: Path) -> Iterator[None]:
    """Locks ``draft`` while it is written; the lock goes with the process, however that ends."""
    with draft.open("wb") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def sweep(folder: Path) -> None:
    """Removes the drafts in ``folder`` that no living process writes, here or on another machine."""
    for draft in folder.glob(".*.draft"):
        if not left(draft):
            continue
        with suppress(OSError), draft.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.unlink()


def left(draft: Path) -> bool:
    """Whether no living process writes ``draft``."""
    number = draft.name.split(".")[-2]
    return number.isdigit() and not _alive(int(number)) and not held(draft)


@contextmanager
def alone(lock: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Holds ``lock``, and removes it afterwards. Calls ``waiting`` once, and waits, where another process holds it.

    The lock goes with the process, however that ends; a file that a killed one left is taken over. Raises BadInput if
    the file cannot be made.
    """
    file = _taken(lock, waiting)
    try:
        yield
    finally:
        with suppress(OSError), file:
            lock.unlink(missing_ok=True)


def _taken(lock: Path, waiting: Callable[[], object]) -> BinaryIO:
    told = False
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("ab")
        except OSError as error:
            raise BadInput("lock", lock, f"cannot be written: {error.strerror or error}") from None
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    waiting()
                told = True
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        except FileNotFoundError:  # who held it has removed it
            pass
        except OSError:  # a file system without locks
            return file
        except BaseException:
            file.close()
            raise
        file.close()


def held(lock: Path) -> bool:
    """Whether a living process holds ``lock``."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def publish_bytes(path: Path, write: Callable[..., object]) -> None:
    """As ``publish``, for a ``write(file)`` that takes an open binary file."""

    def through(draft: Path) -> None:
        with draft.open("wb") as file:
            write(file)

    publish(path, through)


def save_state(path: Path, leaves: Mapping[str, "Tensor"], note: dict[str, Any]) -> None:
    """Writes named tensors and a JSON note as one safetensors file, with a checksum over both."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: leaf.detach().cpu().contiguous() for name, leaf in leaves.items()}
    text = json.dumps(note, separators=(",", ":"), allow_nan=False)
    metadata = {"note": text, "checksum": fingerprint(plain, text)}

    def write(draft: Path) -> None:
        try:
            save_file(plain, draft, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from None

    publish(path, write)


def load_state(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Reads what ``save_state`` wrote. Raises BadInput if a bit of it has changed."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            leaves = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        intact = fingerprint(leaves, metadata["note"]) == metadata["checksum"]
        note: dict[str, Any] = json.loads(metadata["note"])
    except Exception as error:
        raise BadInput("checkpoint", path, f"is corrupt ({type(error).__name__}); delete it to start over") from None
    if not intact:
        raise BadInput("checkpoint", path, "is corrupt (checksum differs); delete it to start over")
    return leaves, note


def fingerprint(leaves: Mapping[str, "Tensor"], text: str = "") -> str:
    """SHA-256 over names, shapes, types and bytes of named tensors, in the order of their names, and ``text``."""
    total = hashlib.sha256(text.encode())
    for name in sorted(leaves):
        leaf = leaves[name].detach().cpu().contiguous()
        total.update(f"{name}:{leaf.dtype}:{tuple(leaf.shape)}".encode())
        total.update(leaf.numpy().data)
    return total.hexdigest()
