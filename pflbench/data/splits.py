"""Files and figures of partitions: an .npz of index lists that carries its own description, the card, and a checksum.

The file holds ``train`` and ``test``, the clients' indices one after another, ``train_offsets`` and ``test_offsets``,
int64[C + 1], where each client's begin, and ``card``, JSON text. Nothing is pickled, and equal splits give equal bytes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from pflbench.core.errors import BadInput
from pflbench.core.fields import canonical
from pflbench.core.files import expanded, publish_bytes
from pflbench.core.reading import clean
from pflbench.data.schemes import Indices, Labels, class_counts, label_distance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

LARGEST = 2**31  # bytes that a file may unpack to
ARRAYS = ("train", "train_offsets", "test", "test_offsets")


class Card(BaseModel):
    """What a file says of itself. seal: since cards carry one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    dataset: str
    scheme: str
    fields: dict[str, Any]
    seed: int
    clients: int
    label_distance: float
    train_size: int
    test_size: int
    train_sizes: list[int]
    test_sizes: list[int]
    class_counts: list[list[int]]
    checksum: str
    seal: str | None = None


@dataclass(frozen=True, eq=False)
class Split:
    """Who trains and tests on what: C lists of training and C of test indices, and the card that describes them."""

    train: list[Indices]
    test: list[Indices]
    card: dict[str, Any]


def make_split(
    train: Sequence[Indices],
    test: Sequence[Indices],
    train_labels: Labels,
    test_labels: Labels,
    *,
    dataset: str,
    scheme: str,
    fields: Mapping[str, Any],
    seed: int,
) -> Split:
    """The split with its card. ``label_distance``: mean total variation distance, 0 to 1; sizes in samples."""
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    card = {
        "dataset": dataset,
        "scheme": scheme,
        "fields": dict(fields),
        "seed": seed,
        "clients": len(train),
        "label_distance": label_distance(train_labels, train),
        "train_size": len(train_labels),
        "test_size": len(test_labels),
        "train_sizes": [len(part) for part in train],
        "test_sizes": [len(part) for part in test],
        "class_counts": class_counts(train_labels, train, classes).tolist(),
        "checksum": _checksum(_pack(train, test)),
    }
    return Split(list(train), list(test), card)


def export_split(path: Path, split: Split) -> None:
    """Writes the file; it appears whole or not at all. Raises BadInput if the place cannot be written."""
    arrays = {**_pack(split.train, split.test), "card": np.array(canonical({**split.card, "seal": _seal(split.card)}))}
    publish_bytes(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def card_of(path: Path) -> dict[str, Any]:
    """The card of a file whose indices are what its checksum says. Raises BadInput."""
    return _read(path)[1]


def import_split(path: Path, train_size: int, test_size: int, dataset: str | None = None) -> Split:
    """Reads a split for a data set of the given sizes (and name, if one is given), and checks everything it relies on.

    Raises BadInput if the file is missing, is no such file, was changed, belongs to another data set, gives an index
    to two clients or leaves a client empty.
    """

    def need(holds: bool, what: str) -> None:
        if not holds:
            raise BadInput("partition file", path, what)

    arrays, card = _read(path)
    need(dataset in (None, card.get("dataset")), f"made for {card.get('dataset')}, needs one made for {dataset}")
    for part, size in (("train", train_size), ("test", test_size)):
        index, offsets, made = arrays[part], arrays[f"{part}_offsets"], card.get(f"{part}_size")
        need(made == size, f"made for another data set: {made} {part} samples, this one has {size}")
        need(len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(index), f"{part}: the offsets do not fit")
        need(bool((np.diff(offsets) > 0).all()), f"{part}: a client is empty")
        need(bool((index >= 0).all() and (index < size).all()), f"{part}: an index is outside 0 to {size - 1}")
    train, test = _unpack(arrays, "train"), _unpack(arrays, "test")
    need(len(train) == len(test) == card.get("clients"), "train, test and card differ in the number of clients")
    need(len(np.unique(arrays["train"])) == len(arrays["train"]), "train: an index is given to two clients")
    need(all(len(np.unique(t)) == len(t) for t in test), "test: an index is given to a client twice")
    return Split(train, test, card)


def plot_counts(counts: npt.NDArray[np.int64], path: Path, title: str) -> None:
    """Draws counts[C, K], the samples of each class at each client, with both margins; .pdf, .png or .svg by the name.

    At most 7.2 inches wide, a page's text width. Raises BadInput for another ending or a place that cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    kind = path.suffix[1:].lower()
    if kind not in ("pdf", "png", "svg"):
        raise BadInput("figure file", path, "the name must end in .pdf, .png or .svg")
    clients, classes = counts.shape
    wide, high = float(np.clip(0.27 * clients, 2.6, 5.5)), float(np.clip(0.2 * classes, 1.2, 6.0))  # inches
    thin = 0.5  # points
    with rc_context(
        {
            "font.size": 7,
            "axes.linewidth": thin,
            "xtick.major.width": thin,
            "ytick.major.width": thin,
            "xtick.minor.width": thin,
            "ytick.minor.width": thin,
            "pdf.fonttype": 42,
            "svg.hashsalt": "pflbench",
        }
    ):
        layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
        figure = Figure(figsize=(wide + 1.7, high + 1.3), dpi=300, layout=layout)
        grid = figure.add_gridspec(2, 3, width_ratios=(wide, 0.5, 0.09), height_ratios=(0.5, high))
        cells = figure.add_subplot(grid[1, 0])
        mesh = _draw_cells(cells, counts)
        bar = figure.colorbar(mesh, cax=figure.add_subplot(grid[1, 2]), label="samples per cell")
        bar.outline.set_visible(False)
        top, right = figure.add_subplot(grid[0, 0], sharex=cells), figure.add_subplot(grid[1, 1], sharey=cells)
        top.bar(np.arange(clients) + 0.5, counts.sum(1), width=0.8, color="#6b7b8c")
        right.barh(np.arange(classes) + 0.5, counts.sum(0), height=0.8, color="#6b7b8c")
        top.set_ylabel("samples")
        right.set_xlabel("samples")
        top.tick_params("x", length=0, labelbottom=False)
        right.tick_params("y", length=0, labelleft=False)
        for panel in (top, right):
            panel.spines[["top", "right"]].set_visible(False)
        figure.suptitle(title, size=8)
        undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)  # equal figures, equal bytes
        publish_bytes(path, lambda file: figure.savefig(file, format=kind, metadata=undated))


def _draw_cells(axes: "Axes", counts: npt.NDArray[np.int64]) -> "QuadMesh":
    """The cells of counts[C, K], clients to the right, classes downwards; with numbers while these are readable.

    One hue from light to dark, so that it survives colour blindness and a grey printer; the shade follows the square
    root, so that small counts show.
    """
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.ticker import MaxNLocator

    largest = max(int(counts.max()), 1)
    shades = LinearSegmentedColormap.from_list("counts", ["#f4f6f8", "#c3d8ea", "#6ba3d0", "#20609f", "#08264d"])
    gap = 0.6 if max(counts.shape) <= 30 else 0.2 if max(counts.shape) <= 120 else 0.0  # points
    mesh = axes.pcolormesh(counts.T, cmap=shades, norm=PowerNorm(0.5, 0, largest), edgecolors="white", linewidth=gap)
    mesh.set_rasterized(gap == 0)
    axes.set(xlabel="client", ylabel="class", ylim=(counts.shape[1], 0))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for axis, length in zip((axes.xaxis, axes.yaxis), counts.shape, strict=True):
        apart = 1 if length <= 30 else int(np.diff(MaxNLocator(10, integer=True).tick_values(0, length))[0])
        ticks = range(0, length, apart)
        axis.set_ticks([tick + 0.5 for tick in ticks], [str(tick) for tick in ticks])
    if max(counts.shape) <= 30:
        for client, label in np.argwhere(counts):
            count = counts[client, label]
            ink = "white" if count > 0.36 * largest else "#1a2a3a"
            axes.text(client + 0.5, label + 0.53, str(count), ha="center", va="center", size=5, color=ink)
    return mesh


def _read(path: Path) -> tuple[dict[str, npt.NDArray[np.int64]], dict[str, Any]]:
    """The four index arrays and the card of a file; BadInput if it is not such a file or was changed."""
    try:
        with open(expanded(path), "rb") as file, np.load(file, allow_pickle=False) as held:
            if sum(member.file_size for member in held.zip.infolist()) > LARGEST:
                raise BadInput("partition file", path, f"unpacks to more than {LARGEST >> 20} MiB")
            arrays, card = {name: held[name] for name in ARRAYS}, clean(json.loads(str(held["card"])))
    except OSError as error:
        raise BadInput("partition file", path, f"cannot be read: {error.strerror or error}") from None
    except BadInput:
        raise
    except Exception:  # of half a dozen libraries, each with errors of its own
        raise BadInput("partition file", path, "not a whole file written by `pflbench partition export`") from None
    try:
        Card.model_validate(card)
        fits = all(a.dtype == np.int64 and a.ndim == 1 for a in arrays.values())
    except ValidationError:
        fits = False
    if not fits:
        raise BadInput("partition file", path, "not a file written by `pflbench partition export`")
    if card["checksum"] != _checksum(arrays) or card.pop("seal", _seal(card)) != _seal(card):
        raise BadInput("partition file", path, "the checksum differs: the file was changed; export it again")
    return arrays, card


def _pack(train: Sequence[Indices], test: Sequence[Indices]) -> dict[str, npt.NDArray[np.int64]]:
    arrays = {}
    for name, parts in (("train", train), ("test", test)):
        arrays[name] = np.concatenate(parts).astype(np.int64)
        arrays[f"{name}_offsets"] = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return arrays


def _unpack(arrays: Mapping[str, npt.NDArray[np.int64]], name: str) -> list[Indices]:
    return np.split(arrays[name], arrays[f"{name}_offsets"][1:-1])


def _seal(card: Mapping[str, Any]) -> str:
    """SHA-256 of what a card says, the indices' checksum in it; 64 hex digits."""
    return sha256(canonical({name: value for name, value in card.items() if name != "seal"}).encode()).hexdigest()


def _checksum(arrays: Mapping[str, npt.NDArray[np.int64]]) -> str:
    """SHA-256 over lengths and little-endian bytes of the four arrays, in the order of ARRAYS; 64 hex digits."""
    digest = sha256()
    for name in ARRAYS:
        digest.update(len(arrays[name]).to_bytes(8, "little") + arrays[name].astype("<i8").tobytes())
    return digest.hexdigest()
