"""The accuracy table: GM and PM of every method in every setting, and which differences the seeds support.

The best of a column is compared with each other method: paired over seeds, t intervals that hold together at 95 %
(Bonferroni). It is bold only if it lies above all of them; who cannot be told from it carries a dagger.
"""

import numpy as np
import pandas as pd

from pflbench import stats, style
from pflbench.draw import accuracy, accuracy_rows


def table(study):
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


def _runs(study, row):
    return study.collect(label=row["method"], setting=row["setting"])


def _marks(study, column):
    """``best``: above all others; ``tied``: the best and those it cannot be told from; empty: below the best."""
    values = np.array([[accuracy(run, row["model"]) for run in _runs(study, row)] for _, row in column.iterrows()])
    if len(values) < 2 or values.shape[1] < 2:
        return ["tied"] * len(values)
    best = int(values.mean(1).argmax())
    level = 1 - 0.05 / max(1, len(np.unique(values, axis=0)) - 1)  # equal rows are one test
    apart = [stats.seed_interval(values[best] - other, level=level).low > 0 for other in values]
    alone = sum(apart) == len(values) - 1
    return ["best" if alone and n == best else "" if apart[n] else "tied" for n in range(len(values))]


def plot(frame):
    settings, methods = style.ordered(frame, "setting"), style.ordered(frame, "method")
    models = [model for model in style.MODELS if model in set(frame["model"])]
    figure, axes = style.new(style.PAGE, 0.45 + len(models) * (0.5 + 0.16 * len(methods)), len(models), len(settings))
    for row, model in enumerate(models):
        shown = [method for method in methods if ((frame["method"] == method) & (frame["model"] == model)).any()]
        for column, setting in enumerate(settings):
            ax, part = axes[row, column], frame[(frame["model"] == model) & (frame["setting"] == setting)]
            start = _start(part)
            for place, method in enumerate(shown):
                one = part[part["method"] == method]
                look = style.look(method)
                if one["mean"].iloc[0] < start:
                    told = f"   {style.percent(one['mean'].iloc[0])}"
                    ax.annotate(told, (start, place), color=look.colour, fontsize=6, va="center", annotation_clip=False)
                    ax.plot(start, place, marker=8, color=look.colour, markersize=4, clip_on=False)
                    continue
                style.dots(ax, one, [place], look.line(), horizontal=True)
                if (one["mark"] == "tied").all():
                    ax.plot(one["mean"], [place], "o", ms=8.5, mfc="none", mec=style.GREY, mew=0.5)
            ax.set_yticks(range(len(shown)), [style.look(name).title for name in shown] if column == 0 else [])
            ax.set_ylim(len(shown) - 0.4, -0.6)
            ax.set_xlim(start, min(ax.get_xlim()[1], 1.002))
            style.as_percent(ax.xaxis)
            ax.grid(axis="y", visible=False)
            ax.tick_params(axis="y", length=0)
            if row == 0:
                ax.set_title(part["title"].iloc[0])
            if row == len(models) - 1:
                ax.set_xlabel("accuracy (%)")
        axes[row, 0].set_ylabel(style.MODELS[model])
    return figure


def _start(part):
    """Where the axis starts: at the lowest interval, or right of a method far behind, which is then told in words."""
    low = part["low"].fillna(part["mean"])
    ordered = part["mean"].sort_values()
    far = ordered[ordered < ordered.median() - 0.06]
    near = part[~part.index.isin(far.index)]
    start = max(low[near.index].min(), near["mean"].min() - 0.06)
    return start - 0.08 * (near["mean"].max() - start) - 0.002


def latex(frame):
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


def _cell(found):
    if found.empty:
        return "--"
    one = found.iloc[0]
    text = style.percent(one["mean"])
    if one["mark"] == "best":
        text = rf"\mathbf{{{text}}}"
    spread = "" if np.isnan(one["low"]) else rf" \pm {style.percent((one['high'] - one['low']) / 2)}"
    mark = (r"\dagger" if one["mark"] == "tied" else "") + (r"\ddagger" if one["diverged"] else "")
    return f"${text}{spread}{f'^{{{mark}}}' if mark else ''}$"


def _escape(text):
    return text.replace("&", r"\&").replace("%", r"\%").replace("_", r"\_")
