"""Data sets of the MNIST family: four gzipped idx files, read strictly."""

import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from pflbench.core.errors import BadInput
from pflbench.data.samples import Samples, moments


def load(name: str, folders: Sequence[Path], files: Mapping[str, str], classes: int, cure: str) -> Samples:
    """The data set of four ``files``, name -> checksum: training images, their labels, test images, their labels."""
    train_x, train_y, test_x, test_y = (read(folders, file, checksum, cure) for file, checksum in files.items())
    train_x, test_x = train_x[:, None], test_x[:, None]
    mean, std = moments(train_x)
    source = "official idx files, contents verified by SHA-256"
    return Samples(name, train_x, train_y.long(), test_x, test_y.long(), classes, mean, std, source)


def read(folders: Sequence[Path], file: str, checksum: str, cure: str) -> Tensor:
    """uint8 tensor of the gzipped idx file in the first of ``folders`` that has it.

    ``checksum`` is the SHA-256 of the *unpacked* bytes: archives that differ in name or date alone are equally good.
    Raises BadInput, ending in ``cure``, for a file that is missing, truncated, changed or no idx file of bytes.
    """
    path = next((folder / file for folder in folders if (folder / file).is_file()), None)
    if path is None:
        raise BadInput("data_root", folders[-1], f"no {file} in {' or '.join(map(str, folders))}; {cure}")
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput("data file", path, f"not a whole gzip file ({error}); {cure}") from None
    found = sha256(content).hexdigest()
    if found != checksum:
        raise BadInput("data file", path, f"SHA-256 of its content is {found}, expected {checksum}; {cure}")
    return parse(content, path)


def parse(content: bytes, path: Path) -> Tensor:
    """The tensor in idx bytes: 0, 0, 8 (unsigned byte), the number of axes, one big-endian uint32 size each, data."""
    axes = content[3] if len(content) > 3 else 0
    start = 4 + 4 * axes
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    size = math.prod(shape)
    if content[:3] != b"\x00\x00\x08" or not axes or len(content) != start + size or not size:
        raise BadInput("data file", path, "not an idx file of unsigned bytes, or not as long as its header says")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)


def fetch(dataset: str, root: Path) -> None:
    """Downloads what is missing or damaged, by torchvision's addresses and checksums, into ``root/dataset/raw``."""
    from torchvision import datasets

    family = getattr(datasets, dataset)
    try:
        for file, md5 in family.resources:
            datasets.utils.download_url(family.mirrors[0] + file, root / dataset / "raw", file, md5)
    except (OSError, RuntimeError) as error:
        raise BadInput("data_root", root, f"the files could not be fetched: {error}") from None
