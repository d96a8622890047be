"""Images before they are a data set in memory: read one by one, decoded, resized and cut to one shape."""

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from pflbench.core.errors import BadInput
from pflbench.core.fields import hyper

Pixels = npt.NDArray[np.uint8]  # [channels, height, width]
Numbers = npt.NDArray[np.int64]  # [n]
Watch = Callable[[int, int], object]  # (images done, images in all)
Colour = Annotated[Literal["rgb", "grey"], hyper("three channels or one")]
Size = Annotated[int, hyper("pixels per side: the shorter one is resized to it, then the centre is cut out", ge=1)]
SplitSeed = Annotated[int, hyper("seed of the draw of test images, where there are none", ge=0)]
BLOCK = 1024  # images per step: bounds memory, and a step is where progress is told
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, OverflowError)  # what Pillow raises


@dataclass(frozen=True, eq=False)
class Part:
    """Images that are read when asked for. labels: [n], 0 to K - 1; image(i) for i in 0 to n - 1; users: [n] or None."""

    labels: Numbers
    image: Callable[[int], Pixels]
    users: Numbers | None = None

    def take(self, index: Numbers) -> "Part":
        """The images ``index``, in that order."""
        users = None if self.users is None else self.users[index]
        return Part(self.labels[index], lambda i: self.image(int(index[i])), users)


@dataclass(frozen=True, eq=False)
class Source:
    """A data set that can be read. origin: where it comes from, for a result's provenance. user: column of the users.

    names: of the classes, where they have some. left_out: what was there and is not in it, in words. stamp: what tells
    the files that it is made of from others; empty where that is not known.
    """

    train: Part
    test: Part
    classes: int
    shape: tuple[int, int, int]  # channels, height, width
    origin: str
    user: str = ""
    names: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    stamp: str = ""


def shape_of(size: int, colour: str) -> tuple[int, int, int]:
    return (1 if colour == "grey" else 3, size, size)


def decode(content: bytes | Path, size: int, colour: str, place: str) -> Pixels:
    """The image in ``content``, bytes or a file, as torchvision's Resize (bilinear, antialiased) and CenterCrop make it.

    An image of that size keeps its every pixel. EXIF orientation is ignored, as torchvision does. Raises BadInput,
    naming ``place``, for what is no whole image.
    """
    from PIL import Image
    from torchvision.transforms import functional

    try:
        with Image.open(BytesIO(content) if isinstance(content, bytes) else content) as file:
            if file.mode[0] in "IF":  # what has more than 8 bits would be cut off, not scaled
                raise ValueError(f"mode {file.mode} has more than 8 bits a channel")
            image = file.convert("L" if colour == "grey" else "RGB")
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise BadInput("image", place, f"cannot be decoded ({type(error).__name__}: {error})") from None
    if image.size != (size, size):
        image = functional.center_crop(functional.resize(image, [size]), [size, size])
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def read(part: Part, into: npt.NDArray[np.uint8]) -> Iterator[int]:
    """Reads every image into its row of ``into: [n, channels, height, width]``; yields how many, block by block."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for first in range(0, len(part.labels), BLOCK):
            rows = range(len(part.labels))[first : first + BLOCK]
            for row, pixels in zip(rows, pool.map(part.image, rows), strict=True):
                into[row] = pixels
            yield len(rows)


def read_all(source: Source, train: npt.NDArray[np.uint8], test: npt.NDArray[np.uint8], watch: Watch) -> None:
    """Reads both parts."""
    done = 0
    for count in chain(read(source.train, train), read(source.test, test)):
        done += count
        watch(done, len(train) + len(test))


def split_off(part: Part, seed: int) -> tuple[Part, Part]:
    """(training, test) where there is no test set: of the images sorted by user, or else by class, every fifth.

    Within a user or class the order is drawn from ``seed``, so the law is: a fifth, at random, stratified; but a class
    that no image would be left of keeps one to train on.
    """
    from pflbench.core.streams import stream

    order = stream(seed, "test split").permutation(len(part.labels))
    key = part.labels if part.users is None else part.users
    order = order[np.argsort(key[order], kind="stable")]
    test = np.zeros(len(order), bool)
    test[order[::5]] = True
    never = ~np.isin(part.labels, part.labels[~test])  # of a class that would be tested and not trained on
    for label in np.unique(part.labels[never]):
        test[order[part.labels[order] == label][0]] = False
    return part.take(np.flatnonzero(~test)), part.take(np.flatnonzero(test))


def stamp_of(folder: Path, files: Iterable[Path]) -> str:
    """64 hex digits of names below ``folder``, sizes and times of ``files``."""
    rows = sorted((file.relative_to(folder).as_posix(), file.stat()) for file in files)
    text = "\n".join(f"{name}\0{about.st_size}\0{about.st_mtime_ns}" for name, about in rows)
    return sha256(text.encode(errors="surrogateescape")).hexdigest()


def coded(values: Iterable[Any], known: list[Any] | None = None) -> tuple[Numbers, list[Any]]:
    """Each value as its position in ``known`` (-1 where it is not there), by default its own sorted distinct values."""
    values = list(values)
    known = sorted(set(values)) if known is None else known
    place = {value: number for number, value in enumerate(known)}
    return np.array([place.get(value, -1) for value in values], np.int64), known
