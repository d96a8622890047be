"""CIFAR-10 and CIFAR-100: the official archives, or Hugging Face, in one order whatever they come from.

``pflbench prepare`` takes the official files if they lie in the data root, in torchvision's layout (the archive, or the
folder in it), and Hugging Face's copy otherwise. Official files need no preparation: a run reads them as they are. They
hold pickles, which can run any code when they are read, so each is read only once its MD5 is the published one, which
torchvision knows and checks. Images are put into one order, by content, so that every source gives the same numbers; only
official files go by the name alone, and a result of another source has its checksum in its address.
"""

import hashlib
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pflbench.core.errors import BadInput
from pflbench.data.images import Part, Source
from pflbench.data.samples import OFFICIAL
from pflbench.data.sets import hf

SIDE = 32  # pixels
IMAGES = (50_000, 10_000)  # to train, to test
Functions = tuple[Callable[[Path], Source], Callable[[Path], Source | None], Callable[[Path], list[Path]]]


def of(name: str, path: str, label: str, classes: int) -> Functions:
    """source, at_hand and files (see ``pflbench.data``) of torchvision's ``name``; ``path``, ``label``: on Hugging Face."""

    def family() -> Any:
        from torchvision import datasets

        return getattr(datasets, name)

    def source(root: Path) -> Source:
        """uint8[50000 and 10000, 3, 32, 32]. Raises BadInput."""
        return at_hand(root) or _fetched(root, path, label, classes)

    def at_hand(root: Path) -> Source | None:
        """The same from the official files in ``root``, unpacked or as the archive, if they are there."""
        found = _lies(root, family())
        return None if found is None else _read(found, family(), classes)

    def files(root: Path) -> list[Path]:
        """The official files that a run would read: those of the folder, or else the archive."""
        found = _lies(root, family())
        if found is None or found.is_file():
            return [found] if found else []
        return sorted(each for each in found.iterdir() if each.is_file())

    return source, at_hand, files


def _lies(root: Path, family: Any) -> Path | None:
    """The unpacked folder or the archive, whichever is there; the folder if both are."""
    folder, archive = root / family.base_folder, root / family.filename
    return folder if folder.is_dir() else archive if archive.is_file() else None


def _read(found: Path, family: Any, classes: int) -> Source:
    """The data set in a folder or an archive. Raises BadInput."""
    if found.is_dir():
        return _ordered(_official(found.parent, family, classes))
    _verified(found, family.tgz_md5)
    with TemporaryDirectory(prefix="pflbench-") as temporary:
        try:
            with tarfile.open(found) as packed:
                packed.extractall(temporary, filter="data")
        except (OSError, EOFError, tarfile.TarError) as error:
            raise BadInput("data file", found, f"cannot be unpacked ({error})") from None
        return _ordered(_official(Path(temporary), family, classes))


def _fetched(root: Path, path: str, label: str, classes: int) -> Source:
    """The data set ``path`` of Hugging Face, its numbers of images checked. Raises BadInput."""
    source = hf.source(root, path=path, label=label, size=SIDE)
    found = (len(source.train.labels), len(source.test.labels))
    if found != IMAGES or source.classes != classes:
        raise BadInput("dataset", path, f"has {found} images of {source.classes} classes, not {IMAGES} of {classes}")
    return _ordered(source)


def _official(root: Path, family: Any, classes: int) -> Source:
    """Every file is verified here, so that the message names it, and by torchvision before it is unpickled."""
    meta = (family.meta["filename"], family.meta["md5"])
    for name, md5 in (*family.train_list, *family.test_list, meta):
        _verified(root / family.base_folder / name, md5)
    parts = []
    for train in (True, False):
        held = family(root, train=train)
        pixels = held.data.transpose(0, 3, 1, 2)
        parts.append(Part(np.array(held.targets, np.int64), pixels.__getitem__))
    return Source(parts[0], parts[1], classes, (3, SIDE, SIDE), f"{OFFICIAL}, verified by MD5")


def _verified(path: Path, md5: str) -> None:
    """Raises BadInput unless the file's MD5 is ``md5``."""
    if not path.is_file():
        raise BadInput("data file", path, "is missing; unpack the official archive again")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise BadInput("data file", path, f"MD5 is {found}, expected {md5}; it was not read; get the file again")


def _ordered(source: Source) -> Source:
    """By SHA-256 of pixels, then label: the same data in the same order, so the same results, from every source."""

    def ordered(part: Part) -> Part:
        pixels = np.stack([part.image(i) for i in range(len(part.labels))])
        marks = [hashlib.sha256(image.tobytes()).digest() for image in pixels]
        order = np.array(sorted(range(len(marks)), key=lambda i: (marks[i], part.labels[i])), np.int64)
        return Part(part.labels[order], pixels[order].__getitem__)

    return replace(source, train=ordered(source.train), test=ordered(source.test))
