"""The accuracy table: GM and PM of every method in every setting, and which differences the seeds support.

The best of a column is compared with each other method: paired over seeds, t intervals that hold together at 95 %
(Bonferroni). It is bold only if it lies above all of them; who cannot be told from it carries a dagger.
"""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from pflbench.report import stats, style
from pflbench.report.figures import accuracy, accuracy_rows
from pflbench.report.finished import Run, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def table(study: Study) -> pd.DataFrame:
    """One row per setting, method and model: mean over seeds with its interval, mark, rank, and the runs behind it."""
    rows = [
        {"setting": setting, "title": title, "method": label, **row}
        for setting, title in study.settings.items()
        for label in study.labels
        for row in accuracy_rows(study.collect(label=label, setting=setting), {})
    ]
    frame = pd.DataFrame(rows)
    frame["diverged"] = [sum(bool(run.record["diverged"]) for run in _runs(study, row)) for row in rows]
    frame["mark"] = ""
    frame["rank"] = np.nan
    for _, column in frame.groupby(["setting", "model"], sort=False):
        frame.loc[column.index, "mark"] = _marks(study, column)
    for _, part in frame.groupby("model", sort=False):
        scores = part.pivot(index="method", columns="setting", values="mean").dropna()
        ranks = dict(zip(scores.index, stats.average_ranks(scores.to_numpy()), strict=True))
        frame.loc[part.index, "rank"] = part["method"].map(ranks)
    return frame


def _runs(study: Study, row: Any) -> list[Run]:
    return study.collect(label=row["method"], setting=row["setting"])


def _marks(study: Study, column: pd.DataFrame) -> list[str]:
    """``best``: above all others; ``tied``: the best and those it cannot be told from; empty: below the best."""
    values = np.array([[accuracy(run, row["model"]) for run in _runs(study, row)] for _, row in column.iterrows()])
    if len(values) < 2 or values.shape[1] < 2:
        return ["tied"] * len(values)
    whole = (column["diverged"] == 0).to_numpy()  # what diverged in a seed is the best of nothing
    if not whole.any():
        return [""] * len(values)
    best = int(np.where(whole, values.mean(1), -1).argmax())
    level = 1 - 0.05 / max(1, len(np.unique(values, axis=0)) - 1)  # equal rows are one test
    apart = [stats.seed_interval(values[best] - other, level=level).low > 0 for other in values]
    alone = sum(apart) == len(values) - 1
    below = [apart[n] or not whole[n] for n in range(len(values))]
    return ["best" if alone and n == best else "" if below[n] else "tied" for n in range(len(values))]


def plot(frame: pd.DataFrame) -> "Figure":
    """Means as dots with their intervals, a panel per setting and model; a ring: cannot be told from the best."""
    settings, methods = style.ordered(frame, "setting"), style.ordered(frame, "method")
    models = [model for model in style.MODELS if model in set(frame["model"])]
    figure, axes = style.new(style.PAGE, 0.45 + len(models) * (0.5 + 0.17 * len(methods)), len(models), len(settings))
    for row, model in enumerate(models):
        shown = [method for method in methods if ((frame["method"] == method) & (frame["model"] == model)).any()]
        for column, setting in enumerate(settings):
            ax, part = axes[row, column], frame[(frame["model"] == model) & (frame["setting"] == setting)]
            ax.set_ylim(len(shown) - 0.4, -0.6)
            ax.set_xlim(*_limits(part))
            for place, method in enumerate(shown):
                _row(ax, part[part["method"] == method], place)
            ax.set_yticks(range(len(shown)), [style.look(name).title for name in shown] if column == 0 else [])
            ax.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
            style.as_percent(ax.xaxis)
            ax.grid(axis="y", visible=False)
            ax.tick_params(axis="y", length=0)
            if row == 0:
                ax.set_title(part["title"].iloc[0])
            if row == len(models) - 1:
                ax.set_xlabel("accuracy (%)")
        axes[row, 0].set_ylabel(style.MODELS[model])
    return figure


def _row(ax: "Axes", one: pd.DataFrame, place: int) -> None:
    """One method: its mean and interval, or a triangle at the axis and what of the interval can be seen."""
    from matplotlib.transforms import offset_copy

    look, (left, right) = style.look(one["method"].iloc[0]), ax.get_xlim()
    at, where = one["mean"].iloc[0], ax.transData
    if at >= left:
        style.dots(ax, one, [place], look.line(), horizontal=True)
        style.heads(ax, one, [place], look.colour)
    else:
        if one["high"].iloc[0] > left:
            ax.plot([left, min(right, one["high"].iloc[0])], [place, place], color=look.colour, linewidth=0.9)
            style.heads(ax, one.assign(low=left), [place], look.colour)
        told, at, where = style.percent(at), left, offset_copy(where, cast("Figure", ax.figure), x=4, units="points")
        ax.plot(at, place, marker="<", color=look.colour, markersize=5, markeredgewidth=0, transform=where)
        place_of: dict[str, Any] = {"textcoords": "offset points", "xytext": (10, 1.5)}
        ax.annotate(told, (at, place), color=look.colour, fontsize=style.SMALLEST, va="bottom", **place_of)
    if one["mark"].iloc[0] == "tied":
        ax.plot(at, place, "o", ms=8.5, mfc="none", mec=style.GREY, mew=0.5, clip_on=False, transform=where)


def _limits(part: pd.DataFrame) -> tuple[float, float]:
    """From the lowest interval, or right of a method far behind, to the highest, or to 100 %."""
    low, high = part["low"].fillna(part["mean"]), part["high"].fillna(part["mean"])
    ordered = part["mean"].sort_values()
    far = ordered[ordered < ordered.median() - 0.06]
    near = part[~part.index.isin(far.index)]
    start = max(low[near.index].min(), near["mean"].min() - 0.06)
    pad = 0.002 + 0.12 * (near["mean"].max() - start)
    return start - pad, min(high[near.index].max() + pad, 1.002)


def latex(frame: pd.DataFrame) -> str:
    """The table for a paper; needs booktabs."""
    settings, methods = style.ordered(frame, "setting"), style.ordered(frame, "method")
    titles = [frame[frame["setting"] == setting]["title"].iloc[0] for setting in settings]
    pairs = [(setting, model) for setting in settings for model in style.MODELS]
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'rr' * len(settings)}rr}}",
        r"\toprule",
        " & ".join(["", *(rf"\multicolumn{{2}}{{c}}{{{_escape(title)}}}" for title in [*titles, "average rank"])])
        + r" \\",
        " ".join(rf"\cmidrule(lr){{{2 * n + 2}-{2 * n + 3}}}" for n in range(len(settings) + 1)),
        " & ".join(["method", *[*style.MODELS] * (len(settings) + 1)]) + r" \\",
        r"\midrule",
    ]
    for method in methods:
        own = frame[frame["method"] == method]
        row = [_cell(own[(own["setting"] == setting) & (own["model"] == model)]) for setting, model in pairs]
        ranks = [own[own["model"] == model]["rank"] for model in style.MODELS]
        row += [f"{rank.iloc[0]:.1f}" if len(rank) and rank.notna().any() else "--" for rank in ranks]
        lines.append(" & ".join([_escape(style.look(method).title), *row]) + r" \\")
    seeds = int(frame["seeds"].min())
    note = (
        rf"% accuracy in percent, mean over {seeds} seeds, plus or minus half a 95 % t interval. Bold: above every other method"
        " of its column at 95 % together; dagger: cannot be told from the best; ddagger: diverged in a seed."
    )
    return "\n".join([note, *lines, r"\bottomrule", r"\end{tabular}", ""])


def _cell(found: pd.DataFrame) -> str:
    if found.empty:
        return "--"
    one = found.iloc[0]
    text = style.percent(one["mean"])
    if one["mark"] == "best":
        text = rf"\mathbf{{{text}}}"
    spread = "" if np.isnan(one["low"]) else rf" \pm {style.percent((one['high'] - one['low']) / 2)}"
    mark = (r"\dagger" if one["mark"] == "tied" else "") + (r"\ddagger" if one["diverged"] else "")
    lost = f" diverged {one['diverged']}/{one['seeds']}" if one["diverged"] else ""
    return f"${text}{spread}{f'^{{{mark}}}' if mark else ''}${lost}"


def _escape(text: str) -> str:
    return text.replace("&", r"\&").replace("%", r"\%").replace("_", r"\_")
