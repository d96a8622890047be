"""How figures look: what is no method borrows no method's look, tables hold what is drawn, no text is too small or outside."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from studies import FIGURES, rows_of, study_of

from pflbench.report import figures, style
from pflbench.study import grid

NAMES = [path.parent.name for path in sorted(FIGURES.glob("*/figure.py"))]
METHODS_AS = {  # a figure's look that stands for a method itself
    ("divergence", "kl"): "spectral",
    ("divergence", "ditto"): "ditto",
    ("spectra", "spectral"): "spectral",
    ("spectra", "ditto"): "ditto",
    ("truncation", "low"): "spectral",
}


def looks_of(figure):
    """Every Look of a figure's module, by its name there."""
    module = figures.load_module(FIGURES / figure / "figure.py")
    found = {}
    for name, value in vars(module).items():
        for key, each in value.items() if isinstance(value, dict) else [(name, value)]:
            if isinstance(each, style.Look):
                found[key] = each
    return found


def pair(look):
    return look.colour.lower(), look.marker


@pytest.mark.parametrize("figure", NAMES)
def test_no_other_look_of_a_figure_is_a_methods(figure):
    taken = {pair(each) for each in style.METHODS.values()}
    for name, look in looks_of(figure).items():
        if (figure, name) in METHODS_AS:
            assert pair(look) == pair(style.METHODS[METHODS_AS[figure, name]])
        else:
            assert pair(look) not in taken, name


def test_variants_and_fleets_share_neither_colour_nor_marker_with_a_method():
    for others in (style.VARIANTS, tuple(style.FLEETS.values())):
        for other, method in itertools.product(others, style.METHODS.values()):
            assert other.colour.lower() != method.colour.lower()
            assert other.marker != method.marker
        for one, two in itertools.combinations(others, 2):
            assert one.colour != two.colour
            assert one.marker != two.marker
    assert not {pair(each) for each in style.KINDS.values()} & {pair(each) for each in style.METHODS.values()}


def test_every_fleet_of_the_package_has_a_title_and_a_users_keeps_its_name():
    from pflbench.clock.fleet import FLEETS

    assert set(style.FLEETS) <= set(FLEETS.names())
    looks = style.fleet_looks([*FLEETS.names(), "mine"])
    assert set(looks) == {*FLEETS.names(), "mine"}
    assert len({pair(look) for look in looks.values()}) == len(looks)
    assert style.fleet("lte") == "phones, LTE"
    assert style.fleet("mine") == "mine"


@pytest.mark.parametrize("figure", NAMES)
def test_every_figure_says_what_it_shows(figure):
    module = figures.load_module(FIGURES / figure / "figure.py")
    one = grid.read_grid(figure, FIGURES) if (FIGURES / figure / "grid.yaml").is_file() else None
    title, caption = (one.title, one.caption) if one else (module.TITLE, module.CAPTION)
    assert title
    assert not title.endswith(".")
    assert caption.endswith(".")
    assert "`" not in caption


# Of the drawn desk study: its CSV files are in the repository


def drawn(figure):
    return figures.load_module(FIGURES / figure / "figure.py"), figures.read_csv(
        grid.out_folder(figure, "desk") / f"{figure}.csv"
    )


@pytest.mark.parametrize("figure", [name for name in NAMES if name != "gain"])
def test_figures_fit_a_page_of_text_that_can_be_read(figure):
    module, frame = drawn(figure)
    if not hasattr(module, "plot"):
        return
    with rc_context(style.RC):
        plotted = module.plot(frame)
        FigureCanvasAgg(plotted).draw()
        width, height = plotted.bbox.size
        assert plotted.get_figwidth() == style.PAGE
        for text in plotted.findobj(Text):
            if text.get_text() and text.get_visible():
                assert text.get_fontsize() >= style.SMALLEST, text.get_text()
        box = plotted.get_tightbbox()
        assert min(box.x0, box.y0) > -0.03
        assert box.x1 * plotted.dpi < width + 3
        assert box.y1 * plotted.dpi < height + 3


# The accuracy figure


def accuracy_axes(**methods):
    module = figures.load_module(FIGURES / "accuracy" / "figure.py")
    frame = module.table(study_of([run for name, values in methods.items() for run in rows_of(name, values)]))
    return frame, module.plot(frame).axes[0]


def rings(axes):
    return [line for line in axes.lines if line.get_marker() == "o" and line.get_markersize() == 8.5]


def test_a_mean_left_of_the_axis_keeps_its_ring_and_what_is_seen_of_its_interval():
    frame, axes = accuracy_axes(ditto=(0.9, 0.91, 0.92), fedrep=(0.9, 0.915, 0.92), pfedme=(0.7, 0.99, 0.5))
    row = frame[(frame["method"] == "pfedme") & (frame["model"] == "GM")].iloc[0]
    left, right = axes.get_xlim()
    assert row["mark"] == "tied"
    assert row["mean"] < left
    assert len(rings(axes)) == 3
    spans = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert [left, min(right, row["high"])] in spans
    heads = [line for line in axes.lines if line.get_marker() == 5]
    assert len(heads) == (row["high"] > right)


def test_a_mean_left_of_the_axis_that_is_below_the_best_has_no_ring():
    frame, axes = accuracy_axes(ditto=(0.9, 0.91, 0.92), fedrep=(0.9, 0.915, 0.92), pfedme=(0.5, 0.51, 0.52))
    assert frame.set_index(["method", "model"])["mark"]["pfedme", "GM"] == ""
    assert len(rings(axes)) == 2


def test_arrowheads_stand_where_an_interval_goes_on():
    _, axes = style.new(2, 2)
    axes[0, 0].set_xlim(0, 1)
    rows = pd.DataFrame({"low": [-0.1, 0.2, np.nan, -1], "high": [0.5, 1.2, np.nan, 2]})
    style.heads(axes[0, 0], rows, range(4), "black")
    found = [(line.get_marker(), *line.get_xdata(), *line.get_ydata()) for line in axes[0, 0].lines]
    assert found == [(4, 0, 0), (5, 1, 1), (4, 0, 3), (5, 1, 3)]


# Tables hold what is drawn and nothing else


def test_spectra_and_waitfree_hold_what_is_drawn():
    _, spectra = drawn("spectra")
    bands = spectra[spectra["part"] == "bands"]
    assert bands["round"].nunique() == 3
    assert set(bands["band"]) == set(range(1, 9))
    assert spectra[spectra["permuted"] == 1][["low", "high"]].isna().all(axis=None)
    _, times = drawn("waitfree")
    assert set(times[times["measure"] == "seconds"]["method"]) == {"spectral"}


def test_means_without_intervals_have_none_in_their_table():
    assert not {"low", "high"} & set(drawn("budget")[1].columns)
    _, each = drawn("divergence")
    assert each[each["part"] == "each"][["low", "high"]].isna().all(axis=None)
    _, tiles = drawn("directions")
    assert tiles[tiles["part"] != "directions"][["low", "high"]].isna().all(axis=None)


def test_no_client_is_left_out():
    module, frame = drawn("clients")
    gains = frame[frame["part"] == "client"]["gain"]
    for axes in module.plot(frame).axes[2:]:
        low, high = axes.get_ylim()
        assert low < gains.min()
        assert gains.max() < high
        assert sum(len(points.get_offsets()) for points in axes.collections) == len(gains)


def test_points_that_share_no_ratio_are_not_shifted():
    module = figures.load_module(FIGURES / "truncation" / "figure.py")
    frame = pd.DataFrame({"keep": ["low", "low", "high", "low"], "tau": [0.1, 0.2, 0.1, 1.0]})
    assert module._shift(frame, "low", 0.2) == module._shift(frame, "low", 1.0) == 0
    assert module._shift(frame, "low", 0.1) == -module._shift(frame, "high", 0.1) < 0


@pytest.mark.parametrize("figure", ["directions", "partition"])
def test_colour_bars_are_vectors(figure, tmp_path):
    module, frame = drawn(figure)
    pdf, _, svg = style.save(module.plot, frame, tmp_path / figure)
    assert b"/Image" not in pdf.read_bytes().replace(b"/ImageB", b"").replace(b"/ImageC", b"").replace(b"/ImageI", b"")
    assert "<image" not in svg.read_text(encoding="utf-8")
