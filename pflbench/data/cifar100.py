"""60,000 RGB 32x32 photographs, 50,000 to train, 100 classes (Krizhevsky 2009, Learning multiple layers of features).

``pflbench prepare`` takes the official files if they lie in the data root, in torchvision's layout (cifar-100-python.tar.gz,
or the folder in it), and ``uoft-cs/cifar100`` of Hugging Face otherwise. Official files need no preparation: a run
reads them as they are. They hold pickles and are read only once their MD5 is the published one. Images are put into one
order, by content, so that every source gives the same numbers; only official files go by the name alone, and a result
of another source has its checksum in its address.
"""

from pathlib import Path

from pflbench.data import _cifar
from pflbench.data._images import Source


def source(root: Path) -> Source:
    """uint8[50000 and 10000, 3, 32, 32]. Raises BadInput."""
    return at_hand(root) or _cifar.fetched(root, "uoft-cs/cifar100", "fine_label", 100)


def at_hand(root: Path) -> Source | None:
    """The same from the official files in ``root``, if they are there."""
    from torchvision.datasets import CIFAR100

    return _cifar.at_hand(root, CIFAR100, 100)


def files(root: Path) -> list[Path]:
    """The official files in ``root``."""
    from torchvision.datasets import CIFAR100

    return _cifar.files(root, CIFAR100)
