"""Accuracy against the truncation ratio, for low frequencies and controls of the same size."""

import numpy as np
import pandas as pd

from pflbench.report import style
from pflbench.report.figures import difference_rows

KEEPS = {
    "low": style.own("spectral", "lowest frequencies"),
    "high": style.variant(0, "highest frequencies"),
    "random": style.variant(1, "random bins"),
    "matrix": style.variant(2, "lowest of every layer (2-D)"),
    "prefix": style.variant(3, "first layers (2-D, released code)"),
}
WHOLE = {"matrix": "matrix", "prefix": "matrix"}  # whose ratio 1 a row is compared with; else low's
STEP = 0.014  # of the ratio, between points that share one


def table(study):
    rows = []
    (setting,) = study.settings
    default = study.collect(label="default", setting=setting)[0].fields["method.tau"]
    whole = {label: study.collect(label=label, setting=setting, **{"method.tau": 1.0}) for label in ("low", "matrix")}
    for keep in KEEPS:
        base = whole[WHOLE.get(keep, "low")]
        for tau in [tau for tau in study.values("method.tau", label=keep) if tau < 1]:
            runs = study.collect(label=keep, setting=setting, **{"method.tau": tau})
            rows += difference_rows(runs, base, {"keep": keep, "tau": tau, "default": default})
        rows += difference_rows(base, base, {"keep": keep, "tau": 1.0, "default": default})  # all bins: the same runs
    frame = pd.DataFrame(rows)
    frame.loc[frame["tau"] < 1, "accuracy"] = np.nan  # only that of ratio 1 is shown, in the label
    return frame


def plot(frame):
    figure, axes = style.new(style.PAGE, 2.5, 1, 2)
    for ax, (name, model) in zip(axes[0], zip("ab", style.MODELS, strict=True), strict=True):
        for keep, look in KEEPS.items():
            own = frame[(frame["keep"] == keep) & (frame["model"] == model)].sort_values("tau")
            x = [tau + _shift(frame, keep, tau) for tau in own["tau"]]
            ax.plot(x, own["mean"], **look.line())
            style.dots(ax, own, x, {"color": look.colour})
        ax.axhline(0, color=style.GREY, linewidth=0.6, zorder=1)
        tau = frame["default"].iloc[0]
        ax.axvline(tau, color=style.GREY, linewidth=0.6, linestyle=(0, (2, 2)), label="default ratio", zorder=1)
        whole = frame[(frame["tau"] == 1) & (frame["model"] == model) & (frame["keep"] == "low")]["accuracy"].iloc[0]
        ax.set_xlabel("share of the bins that is compared")
        ax.set_ylabel(f"points above ratio 1 ({style.percent(whole)} %)")
        style.as_percent(ax.yaxis)
        style.letter(ax, name, style.MODELS[model])
    style.legend(figure, axes.flat, columns=3)
    return figure


def _shift(frame, keep, tau):
    """Side by side around the ratio they share, so that no bar hides another; at ratio 1 all are the same runs."""
    there = [each for each in KEEPS if ((frame["keep"] == each) & (frame["tau"] == tau)).any()]
    return 0 if tau == 1 else STEP * (there.index(keep) - (len(there) - 1) / 2)
