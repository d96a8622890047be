"""Files that appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

from pflbench.errors import BadInput


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
