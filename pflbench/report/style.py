"""How every figure looks: one size, one set of fonts, and one colour and marker per method, told apart by colour-blind readers.

Colours are Okabe and Ito's (black, orange, sky blue, green, blue, vermillion, purple) and Tol's wine. A marker and a
dash pattern belong to a method as well, so that no figure relies on colour alone. What is no method, a variant of one
or a fleet, has colours and markers that no method has.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE = 5.5  # inches: the text width of NeurIPS and ICLR, so that a figure is printed as large as it is drawn
SMALLEST = 6.0  # points, of any text but indices
INK, GREY, PALE = "#222222", "#767676", "#D0D0D0"
MODELS = {"GM": "generic model (GM)", "PM": "personal models (PM)"}

FOUR = (4, 1, 0)  # a star of four points
SIZES = {"*": 7.0, "X": 5.0, "P": 5.0, "D": 3.6, "h": 4.6, "p": 5.0, "d": 5.0, FOUR: 7.0}  # as large as the others at 4


@dataclass(frozen=True)
class Look:
    """A title, and what draws it."""

    title: str
    colour: str
    marker: Any
    dash: Any = "-"

    def line(self, **more: Any) -> dict[str, Any]:
        """Keyword arguments of ``Axes.plot``."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.dash,
            "label": self.title,
            "markersize": SIZES.get(self.marker, 4.0),
            "markeredgecolor": "white",
            "markeredgewidth": 0.4,
            "linewidth": 1.2,
            **more,
        }


METHODS = {
    "local_only": Look("Local-only", "#767676", "v", (0, (1, 1))),
    "fedavg": Look("FedAvg", "#000000", "o", (0, (5, 1.5))),
    "fedavg_ft": Look("FedAvg-FT", "#E69F00", "X", (0, (3, 1, 1, 1))),
    "fedprox": Look("FedProx", "#56B4E9", "P", (0, (5, 1, 1, 1, 1, 1))),
    "ditto": Look("Ditto", "#0072B2", "s", (0, (4, 1))),
    "pfedme": Look("pFedMe", "#CC79A7", "D", (0, (2, 1))),
    "fedrep": Look("FedRep", "#009E73", "^", (0, (6, 1, 2, 1))),
    "spectral": Look("Spectral", "#D55E00", "*", "-"),
    "spectral_released": Look("Spectral, released", "#882255", "h", (0, (1, 0.6))),
}
KINDS = {
    "GM": Look(MODELS["GM"], "#444444", "s"),
    "PM": Look(MODELS["PM"], "#BB5566", "o"),
}  # where colour is no method
VARIANTS = (  # of one method, in one figure; and FLEETS: apart from each other for colour-blind readers too
    Look("", "#008080", "p", (0, (4, 1))),
    Look("", "#663333", "d", (0, (1, 1))),
    Look("", "#222255", FOUR, (0, (5, 1, 1, 1))),
    Look("", "#EE8866", "8", (0, (2, 1))),
)
FLEETS = {
    "homogeneous": Look("homogeneous", "#6B4C1E", "8"),
    "lognormal": Look("lognormal", "#8073AC", "p"),
    "lte": Look("phones, LTE", "#EE8866", "<"),
    "wifi": Look("phones, wifi", "#542788", ">"),
    "fibre": Look("homes, fibre", "#01665E", "d"),
    "silo": Look("institutions", "#AAAA00", FOUR),
}
SPARE = (("#44AA99", "<"), ("#999933", ">"), ("#332288", "p"), ("#AA4499", "d"))  # for methods added later, by name


def look(method: str) -> Look:
    """The look of a method; one that is not in the list gets a spare one, always the same."""
    if method in METHODS:
        return METHODS[method]
    colour, marker = SPARE[sum(map(ord, method)) % len(SPARE)]
    return Look(method, colour, marker, (0, (3, 1)))


def variant(number: int, title: str) -> Look:
    """The look of a figure's variant ``number``, from 0."""
    return replace(VARIANTS[number], title=title)


def own(method: str, title: str) -> Look:
    """The look of a method where it stands under another title."""
    return replace(look(method), title=title)


def fleet(name: str) -> str:
    """The title of a fleet; one that has no look of its own keeps its name."""
    return FLEETS[name].title if name in FLEETS else name


def fleet_looks(names: Iterable[str]) -> dict[str, Look]:
    """Name -> look of fleets; one that has none gets a spare one."""
    own = {name: look for name, look in FLEETS.items() if name in set(names)}
    others = [name for name in names if name not in own]
    return own | {name: Look(name, *SPARE[number % len(SPARE)]) for number, name in enumerate(others)}


RC: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "figure.titlesize": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "pdf.fonttype": 42,  # fonts embedded as they are
    "ps.fonttype": 42,
    "svg.hashsalt": "pflbench",
    "savefig.facecolor": "white",
}


def new(width: float, height: float, rows: int = 1, columns: int = 1, **more: Any) -> "tuple[Figure, Any]":
    """A figure of ``width`` x ``height`` inches and its axes, [rows, columns]."""
    figure = _blank(width, height)
    return figure, figure.subplots(rows, columns, squeeze=False, **more)


def mosaic(width: float, height: float, panels: str, **more: Any) -> "tuple[Figure, dict[Any, Axes]]":
    """A figure and its axes by letter: "ab;cc" puts (c) below (a) and (b), as wide as both."""
    figure = _blank(width, height)
    return figure, figure.subplot_mosaic(panels, **more)


def _blank(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.03, hspace=0.04)  # type: ignore[union-attr, call-arg]
    return figure


def save(plot: "Callable[[pd.DataFrame], Figure]", frame: pd.DataFrame, stem: Path) -> list[Path]:
    """``plot(frame)`` as vector PDF and SVG and as PNG; equal frames give equal bytes."""
    from matplotlib import rc_context

    files = [stem.with_suffix(ending) for ending in (".pdf", ".png", ".svg")]
    with rc_context(RC):
        figure = plot(frame)
        for file in files:
            once: dict[str, Any] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(file.suffix, {})
            figure.savefig(file, dpi=220, metadata=once)
    return files


def ordered(frame: pd.DataFrame, column: str) -> list[Any]:
    """The values of a column in the order in which they first appear."""
    return list(dict.fromkeys(frame[column]))


def band(axes: "Axes", rows: pd.DataFrame, x: str, line: dict[str, Any], every: int = 1) -> None:
    """A line through the means with its interval as a band. rows: x, mean, low, high"""
    axes.plot(rows[x], rows["mean"], markevery=every, **line)
    if rows["low"].notna().any():
        axes.fill_between(rows[x], rows["low"], rows["high"], color=line["color"], alpha=0.13, linewidth=0)


def dots(axes: "Axes", rows: pd.DataFrame, at: Iterable[float], line: dict[str, Any], horizontal: bool = False) -> None:
    """Means as dots with their intervals as bars, at positions ``at``. rows: mean, low, high"""
    place = np.asarray(list(at), dtype=float)
    reach = np.abs(rows[["low", "high"]].to_numpy(float).T - rows["mean"].to_numpy(float))
    errors = {
        "elinewidth": 0.9,
        "capsize": 0,
        "linestyle": "none",
        **{k: v for k, v in line.items() if k != "linestyle"},
    }
    known = None if np.isnan(reach).all() else np.nan_to_num(reach)
    if horizontal:
        axes.errorbar(rows["mean"], place, xerr=known, **errors)
    else:
        axes.errorbar(place, rows["mean"], yerr=known, **errors)


def heads(axes: "Axes", rows: pd.DataFrame, at: Iterable[float], colour: str) -> None:
    """An arrowhead where a horizontal interval goes on beyond the axis, whose limits are final. rows: low, high"""
    left, right = axes.get_xlim()
    for place, low, high in zip(at, rows["low"], rows["high"], strict=True):
        for edge, cut, marker in ((left, low < left, 4), (right, high > right, 5)):  # their tips at the edge
            if cut:
                axes.plot(edge, place, marker=marker, color=colour, markersize=4.5, markeredgewidth=0, clip_on=False)


def colour_bar(figure: "Figure", mesh: Any, axes: Any, label: str, **more: Any) -> Any:
    """A colour bar of vectors, without the seams that viewers show between them."""
    bar = figure.colorbar(mesh, ax=axes, label=label, **more)
    assert bar.solids is not None
    bar.solids.set(rasterized=False, edgecolor="face", linewidth=0.3)
    bar.outline.set_visible(False)
    return bar


def legend(figure: "Figure", axes: Iterable["Axes"], columns: int | None = None, **more: Any) -> None:
    """One legend for all panels, below them: methods in their own order, then the rest; no error bars."""
    from matplotlib.container import ErrorbarContainer

    found: dict[str, Any] = {}
    for each in axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle[0] if isinstance(handle, ErrorbarContainer) else handle)
    order = [each.title for each in METHODS.values()]
    found = dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))
    place = {"loc": "outside lower center", "ncols": columns or len(found), "handlelength": 2.6, "columnspacing": 1.2}
    figure.legend(list(found.values()), list(found), **{**place, **more})


def letter(axes: "Axes", name: str, title: str) -> None:
    """A panel's letter and title."""
    axes.set_title(f"({name}) {title}")


def percent(value: float) -> str:
    """A fraction as a percentage with one digit."""
    return f"{100 * value:.1f}"


def log_axis(axes: "Axes", subs: tuple[float, ...] = (1.0, 2.0, 5.0)) -> None:
    """A logarithmic x axis with plain numbers at 1, 2 and 5, for ranges of a decade or two."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def as_percent(axis: Any) -> None:
    """Ticks of fractions as percentages."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}".replace("-", "\N{MINUS SIGN}")))
