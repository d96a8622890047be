"""Accuracy against the truncation ratio, for low frequencies and three controls of the same size."""

import pandas as pd

from pflbench import style
from pflbench.draw import difference_rows

KEEPS = {
    "low": style.Look("lowest frequencies", "#D55E00", "*"),
    "high": style.Look("highest frequencies", "#0072B2", "s", (0, (4, 1))),
    "random": style.Look("random bins", "#767676", "v", (0, (1, 1))),
    "prefix": style.Look("first layers (released code)", "#882255", "h", (0, (5, 1, 1, 1))),
}


def table(study):
    rows = []
    (setting,) = study.settings
    default = study.collect(label="default", setting=setting)[0].fields["method.tau"]
    base = study.collect(label="low", setting=setting, **{"method.tau": 1.0})
    for keep in KEEPS:
        for tau in [tau for tau in study.values("method.tau", label=keep) if tau < 1]:
            runs = study.collect(label=keep, setting=setting, **{"method.tau": tau})
            rows += difference_rows(runs, base, {"keep": keep, "tau": tau, "default": default})
        rows += difference_rows(base, base, {"keep": keep, "tau": 1.0, "default": default})  # all bins: the same runs
    return pd.DataFrame(rows)


def plot(frame):
    figure, axes = style.new(style.PAGE, 2.5, 1, 2)
    for ax, (name, model) in zip(axes[0], zip("ab", style.MODELS, strict=True), strict=True):
        for place, (keep, look) in enumerate(KEEPS.items()):
            own = frame[(frame["keep"] == keep) & (frame["model"] == model)].sort_values("tau")
            x = own["tau"] + 0.012 * (place - 1.5) * (own["tau"] < 1)  # side by side, so that no bar hides another
            ax.plot(x, own["mean"], **look.line())
            style.dots(ax, own, x, {"color": look.colour})
        ax.axhline(0, color=style.GREY, linewidth=0.6, zorder=1)
        tau = frame["default"].iloc[0]
        ax.axvline(tau, color=style.GREY, linewidth=0.6, linestyle=(0, (2, 2)), label="default ratio", zorder=1)
        whole = frame[(frame["tau"] == 1) & (frame["model"] == model)]["accuracy"].iloc[0]
        ax.set_xlabel("share of the bins that is compared")
        ax.set_ylabel(f"points above ratio 1 ({style.percent(whole)} %)")
        style.as_percent(ax.yaxis)
        style.letter(ax, name, style.MODELS[model])
    style.legend(figure, axes.flat)
    return figure
