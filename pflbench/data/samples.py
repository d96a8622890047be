"""A data set in memory, and what is said of one on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

OFFICIAL = "official files"  # how the origin of a data set begins whose every file has the published checksum


@dataclass(frozen=True, eq=False)
class Samples:
    """A data set in memory. Pixels stay uint8 until a batch is made; ``mean`` and ``std`` are of pixels / 255."""

    name: str  # as one would type it
    train_x: "Tensor"  # uint8[n, channels, height, width], 0 to 255
    train_y: "Tensor"  # int64[n], 0 to classes - 1
    test_x: "Tensor"  # as train_x
    test_y: "Tensor"  # as train_y
    classes: int
    mean: tuple[float, ...]  # per channel, over train_x
    std: tuple[float, ...]  # per channel, over train_x
    source: str  # where the numbers come from, for a result's provenance
    train_users: "Tensor | None" = None  # int64[n], 0 to users - 1: whose image it is, where the data say so
    test_users: "Tensor | None" = None  # as train_users; -1 for a user without training images
    user: str = ""  # the column that train_users and test_users come from


@dataclass(frozen=True)
class Prepared:
    """One prepared data set on disk. label: as one would type it. whole: every byte is what its checksum says."""

    label: str
    path: Path
    images: tuple[int, int] | None  # to train, to test
    bytes: int
    checksum: str
    whole: bool


def moments(images: "Tensor") -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of images[n, channels, height, width] / 255, to float64 rounding."""
    values = range(256)
    counted = [[0] * 256 for _ in range(images.shape[1])]
    for first in range(0, len(images), 1024):  # counting needs 8 bytes a pixel
        for channel, counts in enumerate(counted):
            new = images[first : first + 1024, channel].flatten().bincount(minlength=256).tolist()
            counted[channel] = [old + more for old, more in zip(counts, new, strict=True)]
    mean, std = [], []
    for counts in counted:
        total, first = sum(counts), sum(v * c for v, c in zip(values, counts, strict=True))
        second = sum(v * v * c for v, c in zip(values, counts, strict=True))
        mean.append(first / total / 255)
        std.append((second * total - first * first) ** 0.5 / total / 255)
    return tuple(mean), tuple(std)
