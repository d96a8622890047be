"""Any folder of images, one folder per class: folder:PATH, or folder:path=PATH,size=64,...

PATH is a folder itself or below the data root. It holds one folder to train on and one to test on (``train`` or
``training``; ``test``, ``testing``, ``val``, ``valid`` or ``validation``, in any case), each with the same folders of
classes, or the folders of classes themselves; then a fifth of the images of every class, drawn with ``split_seed``, is
for testing, but a class's only image is trained on. Classes are numbered in the order of their names. Hidden files,
folders of tools and links are left out; what was left out is told. Read once, by ``pflbench prepare``.
"""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np

from pflbench.core.errors import BadInput
from pflbench.core.fields import hyper
from pflbench.core.files import expanded
from pflbench.data.images import Colour, Part, Size, Source, SplitSeed, decode, shape_of, split_off, stamp_of

TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")
TOOLS = ("__macosx", "__pycache__", "thumbs.db", "desktop.ini")  # and whatever begins with a dot
READ = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
FIELD = "dataset folder.path"
PathField = Annotated[str, hyper("the folder; relative to the data root")]
Listed = tuple[list[str], list[tuple[str, int]]]  # class names, and (file, class) pairs


def source(
    root: Path, *, path: PathField, size: Size = 64, colour: Colour = "rgb", split_seed: SplitSeed = 0
) -> Source:
    """uint8[n, channels, size, size]. Raises BadInput."""
    out: Counter[str] = Counter()
    listed = _parts(root / expanded(Path(path)), out)
    names = listed[0][0]
    parts = [part_of(files, size, colour) for _, files in listed]
    train, test = parts if len(parts) == 2 else split_off(parts[0], split_seed)
    told = tuple(f"{number} {what}" for what, number in sorted(out.items()))
    stamp = identity(root, path=path)
    shape = shape_of(size, colour)
    return Source(train, test, len(names), shape, "folder of images", "", tuple(names), told, stamp)


def identity(root: Path, *, path: PathField, **rest: object) -> str:
    """What tells these very files from others without decoding one: names, sizes and times. Raises BadInput."""
    folder = root / expanded(Path(path))
    return stamp_of(folder, (Path(file) for _, files in _parts(folder, Counter()) for file, _ in files))


def part_of(files: list[tuple[str, int]], size: int, colour: str) -> Part:
    """(file, class) pairs as images to be read."""
    labels = np.array([label for _, label in files], np.int64)
    return Part(labels, lambda i: decode(Path(files[i][0]), size, colour, files[i][0]))


def _parts(folder: Path, out: Counter[str]) -> list[Listed]:
    """What is trained and tested on, or one for both; what was left out is counted in ``out``. Raises BadInput."""
    inside = _folders(folder, Counter())
    train, test = ([name for name in inside if name.lower() in known] for known in (TRAIN, TEST))
    official = [name for name in test if name.lower() in TEST[:2]]
    for found, which in ((train, "train on"), (official or test, "test on")):
        if len(found) > 1:
            raise BadInput(FIELD, folder, f"has {' and '.join(found)}: which is to {which}? keep one of them here")
    if not train and not test:
        return [_listed(folder, out)]
    if not train or not test:
        has, lacks = (train, "test or val") if train else (test, "train")
        cure = "needs both, train and test, or neither; rename it if it is a class"
        raise BadInput(FIELD, folder, f"has a folder {has[0]} and no {lacks}; {cure}")
    used = [train[0], (official or test)[0]]
    for name in _folders(folder, out):
        if name not in used:
            out[f"folder {name} beside {used[0]} and {used[1]}"] += 1
    listed = [_listed(folder / name, out) for name in used]
    differ = sorted(set(listed[0][0]) ^ set(listed[1][0]))
    if differ:
        raise BadInput(FIELD, folder, f"{used[0]} and {used[1]} differ in their classes: {', '.join(differ)}")
    return listed


def _folders(folder: Path, out: Counter[str]) -> list[str]:
    """The names of the folders in ``folder``, sorted; everything else is counted. Raises BadInput."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        raise BadInput(FIELD, folder, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    kept = [entry for entry in entries if not _left_out(entry, out)]
    out.update("file(s) beside the folders of classes" for entry in kept if not entry.is_dir())
    return [entry.name for entry in kept if entry.is_dir()]


def _left_out(entry: "os.DirEntry[str]", out: Counter[str]) -> bool:
    """Whether an entry is hidden, a tool's or a link."""
    if entry.name.startswith(".") or entry.name.lower() in TOOLS:
        out["hidden or of a tool"] += 1
        return True
    if entry.is_symlink():
        out["link(s)"] += 1
        return True
    return False


def _listed(folder: Path, out: Counter[str]) -> Listed:
    """(class names, (file, class) pairs sorted by both). Raises BadInput."""
    names = _folders(folder, out)
    if not names:
        raise BadInput(FIELD, folder, "holds no folder of a class")
    found = {name: list(_images(folder / name, out)) for name in names}
    empty = [name for name in names if not found[name]]
    if empty:
        known = f"known are {', '.join(READ)}"
        raise BadInput(FIELD, folder, f"no image in the folders of the classes {', '.join(empty)}; {known}")
    return names, [(str(file), number) for number, name in enumerate(names) for file in found[name]]


def _images(folder: Path, out: Counter[str]) -> Iterable[Path]:
    """Every image below ``folder``, sorted by folder and name."""
    inside: list[tuple[str, list[str]]] = []
    below = [str(folder)]
    while below:
        place = below.pop()
        entries = [entry for entry in os.scandir(place) if not _left_out(entry, out)]
        below += [entry.path for entry in entries if entry.is_dir()]
        inside.append((place, sorted(entry.name for entry in entries if not entry.is_dir())))
    for place, names in sorted(inside):
        for name in names:
            if name.lower().endswith(READ):
                yield Path(place, name)
            else:
                out[f"file(s) of the unknown format {os.path.splitext(name)[1].lower() or 'without an ending'}"] += 1
