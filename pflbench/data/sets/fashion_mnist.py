"""70,000 grey 28x28 images of clothes, 60,000 to train, 10 classes (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747).

The four official .gz files lie in the data root or, as torchvision puts them, in FashionMNIST/raw below it. Without a
data root, those of Debian's package dataset-fashion-mnist are the last resort. They are the official archives but for
name and date in the gzip header, so what is checked is the SHA-256 of the unpacked content.
"""

from contextlib import suppress
from pathlib import Path

from pflbench.core.errors import BadInput
from pflbench.data import idx
from pflbench.data.samples import Samples

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def load(root: Path | None) -> Samples:
    """uint8[60000 and 10000, 1, 28, 28]. Raises BadInput if a file is missing, truncated or changed."""
    cure = f"run `pflbench prepare fashion_mnist --data-root {root or 'DIR'}`"
    if root is None and not DEBIAN.is_dir():
        raise BadInput("data_root", "missing", f"give --data-root DIR or set PFLBENCH_DATA; to fetch the files, {cure}")
    return idx.load("fashion_mnist", _folders(root), FILES, 10, cure)


def prepare(root: Path) -> None:
    """Fetches what is missing or damaged with torchvision; raises BadInput if that fails."""
    with suppress(BadInput):
        load(root)
        return
    idx.fetch("FashionMNIST", root)
    load(root)


def files(root: Path) -> list[Path]:
    """The files that are there, of each the one that is read."""
    found = (next((f / name for f in _folders(root) if (f / name).is_file()), None) for name in FILES)
    return [path for path in found if path is not None]


def _folders(root: Path | None) -> list[Path]:
    return [DEBIAN] if root is None else [root / "FashionMNIST" / "raw", root]
