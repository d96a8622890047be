"""Any folder of images, one folder per class: folder:PATH, or folder:path=PATH,size=64,...

PATH is a folder itself or below the data root. It holds ``train`` and ``test``, each with the same folders of classes,
or the folders of classes themselves; then a fifth of the images of every class, drawn with ``split_seed``, is for
testing. Classes are numbered in the order of their names. Read once, by ``pflbench prepare``.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np

from pflbench.core.errors import BadInput
from pflbench.core.fields import hyper
from pflbench.data.images import Colour, Part, Size, Source, SplitSeed, decode, shape_of, split_off


def source(
    root: Path,
    *,
    path: Annotated[str, hyper("the folder; relative to the data root")],
    size: Size = 64,
    colour: Colour = "rgb",
    split_seed: SplitSeed = 0,
) -> Source:
    """uint8[n, channels, size, size]. Raises BadInput."""
    folder = root / path
    there = [name for name in ("train", "test") if (folder / name).is_dir()]
    if len(there) == 1:
        raise BadInput(
            "dataset folder.path", folder, f"has a folder {there[0]}; needs both, train and test, or neither"
        )
    listed = [_listed(folder / name) for name in there] or [_listed(folder)]
    if there and listed[0][0] != listed[1][0]:
        differ = sorted(set(listed[0][0]) ^ set(listed[1][0]))
        raise BadInput("dataset folder.path", folder, f"train and test differ in their classes: {', '.join(differ)}")
    parts = [part_of(files, size, colour) for _, files in listed]
    train, test = parts if there else split_off(parts[0], split_seed)
    return Source(train, test, len(listed[0][0]), shape_of(size, colour), "folder of images")


def part_of(files: list[tuple[str, int]], size: int, colour: str) -> Part:
    """(file, class) pairs as images to be read."""
    labels = np.array([label for _, label in files], np.int64)
    return Part(labels, lambda i: decode(Path(files[i][0]), size, colour, files[i][0]))


def _listed(folder: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """(class names, (file, class) pairs sorted by both), as torchvision finds them. Raises BadInput."""
    from torchvision.datasets import ImageFolder

    try:
        found: Any = ImageFolder(folder)
    except OSError as error:
        raise BadInput("dataset folder.path", folder, " ".join(str(error).split())) from None
    return found.classes, found.samples
