"""Accuracy curves of GM and PM with bands over seeds."""

import pandas as pd

from pflbench.report import style
from pflbench.report.figures import curve_of, estimate


def table(study):
    rows = []
    for setting, title in study.settings.items():
        for label in study.labels:
            runs = study.collect(label=label, setting=setting)
            rounds = runs[0].record["curve"]["rounds"]
            for model in style.MODELS:
                curves = [curve_of(run, model) for run in runs]
                if any(curve is None for curve in curves):
                    continue
                for number, points in zip(rounds, zip(*curves, strict=True), strict=True):
                    head = {"setting": setting, "title": title, "method": label, "model": model, "round": number}
                    rows.append({**head, **estimate(runs, points)})
    return pd.DataFrame(rows)


def plot(frame):
    settings, methods = style.ordered(frame, "setting"), style.ordered(frame, "method")
    models = [model for model in style.MODELS if model in set(frame["model"])]
    figure, axes = style.new(
        style.PAGE, 0.5 + 1.75 * len(models), len(models), len(settings), sharex=True, sharey="row"
    )
    for row, model in enumerate(models):
        for column, setting in enumerate(settings):
            ax, part = axes[row, column], frame[(frame["model"] == model) & (frame["setting"] == setting)]
            for place, method in enumerate(methods):
                one = part[part["method"] == method]
                if one.empty:
                    continue
                big = {"linewidth": 1.8, "zorder": 3} if method == "spectral" else {}
                line = style.look(method).line(**big)
                style.band(ax, one, "round", line, every=(2 * place, max(1, len(one) // 4)))
            style.as_percent(ax.yaxis)
            if row == 0:
                ax.set_title(part["title"].iloc[0])
            if row == len(models) - 1:
                ax.set_xlabel("round")
        axes[row, 0].set_ylim(max(0, frame[frame["model"] == model]["mean"].min() - 0.03), 1.005)
        axes[row, 0].set_ylabel(f"{model} accuracy (%)")
    style.legend(figure, axes.flat, columns=4)
    return figure
