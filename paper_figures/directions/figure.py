"""The spectral term in both phases, one or none; and the grid of both coefficients, with the released code's literal pair."""

import numpy as np
import pandas as pd

from pflbench import style
from pflbench.draw import accuracy_rows, difference_rows

NAMES = {"both": "both", "gm_only": "GM phase only", "pm_only": "PM phase only"}


def table(study):
    (setting,) = study.settings
    rows = []
    base = study.collect(label="none", setting=setting)
    for label in NAMES:
        runs = study.collect(label=label, setting=setting)
        rows += difference_rows(runs, base, {"part": "directions", "label": label, **_coefficients(runs)})
    for lam_g in study.values("method.lam_g", label="grid"):
        for lam_p in study.values("method.lam_p", label="grid"):
            runs = study.collect(label="grid", setting=setting, **{"method.lam_g": lam_g, "method.lam_p": lam_p})
            rows += accuracy_rows(runs, {"part": "grid", "label": "grid", **_coefficients(runs)})
    runs = study.collect(label="literal", setting=setting)
    rows += accuracy_rows(runs, {"part": "literal", "label": "literal", **_coefficients(runs)})
    return pd.DataFrame(rows)


def _coefficients(runs):
    return {name: runs[0].fields[f"method.{name}"] for name in ("lam_g", "lam_p")}


def plot(frame):
    figure, axes = style.new(style.PAGE, 2.45, 1, 3, width_ratios=(1.05, 1, 1))
    _directions(axes[0, 0], frame[frame["part"] == "directions"])
    for ax, (letter, model) in zip(axes[0, 1:], zip("bc", style.MODELS, strict=True), strict=True):
        _grid(figure, ax, frame[frame["model"] == model])
        style.letter(ax, letter, style.MODELS[model])
    return figure


def _directions(ax, frame):
    for model, look in style.KINDS.items():
        own = frame[frame["model"] == model]
        shift = -0.12 if model == "GM" else 0.12
        line = look.line(linestyle="none", markersize=4.5)
        style.dots(ax, own, [list(NAMES).index(label) + shift for label in own["label"]], line, horizontal=True)
    ax.set_yticks(range(len(NAMES)), NAMES.values())
    ax.set_ylim(len(NAMES) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.axvline(0, color=style.GREY, linewidth=0.6, zorder=1)
    ax.set_xlabel("points above no term at all")
    ax.set_ylabel("spectral term in")
    style.as_percent(ax.xaxis)
    style.letter(ax, "a", "one or two directions")
    ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=2, handletextpad=0.3, columnspacing=0.8)


def _grid(figure, ax, frame):
    cells, literal = frame[frame["part"] == "grid"], frame[frame["part"] == "literal"].iloc[0]
    table = cells.pivot(index="lam_g", columns="lam_p", values="mean")
    values = table.to_numpy()
    shown = np.append(values, literal["mean"])
    limits = {"vmin": np.nanmin(shown), "vmax": np.nanmax(shown), "cmap": "cividis"}
    rows, columns = values.shape
    mesh = ax.pcolormesh(np.arange(columns + 1), np.arange(rows + 1), values, edgecolors="white", linewidth=1, **limits)
    apart = columns + 0.35
    ax.pcolormesh([apart, apart + 1], [0, 1], [[literal["mean"]]], edgecolors="white", linewidth=1, **limits)
    middle = (limits["vmin"] + limits["vmax"]) / 2
    points = [(x + 0.5, y + 0.5, values[y, x]) for y in range(rows) for x in range(columns)]
    for x, y, value in [*points, (apart + 0.5, 0.5, literal["mean"])]:
        ink = "white" if value < middle else "black"
        ax.text(x, y, style.percent(value), ha="center", va="center", fontsize=6, color=ink)
    ticks = [*(np.arange(columns) + 0.5), apart + 0.5]
    ax.set_xticks(ticks, [*(f"{value:g}" for value in table.columns), "literal"])
    ax.set_yticks(np.arange(rows) + 0.5, [f"{value:g}" for value in table.index])
    ax.set_xlim(0, apart + 1)
    ax.set_xlabel(r"$\lambda_p$ (PM phase)")
    ax.set_ylabel(r"$\lambda_g$ (GM phase)")
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = figure.colorbar(mesh, ax=ax, pad=0.02, aspect=25)
    bar.outline.set_visible(False)
    style.as_percent(bar.ax.yaxis)
