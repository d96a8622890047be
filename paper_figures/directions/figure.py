"""The spectral term in both phases, one or none; and the grid of both coefficients, with the released code's literal pair."""

import numpy as np
import pandas as pd

from pflbench.report import style
from pflbench.report.figures import accuracy_rows, difference_rows

NAMES = {"both": "both", "gm_only": "GM phase only", "pm_only": "PM phase only"}
APART = {"both": "default", "literal": "literal"}  # rows whose pair is not on the grid: tiles of their own


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
    for label, part in APART.items():
        runs = study.collect(label=label, setting=setting)
        rows += accuracy_rows(runs, {"part": part, "label": label, **_coefficients(runs)})
    frame = pd.DataFrame(rows).drop(columns="accuracy")
    frame.loc[frame["part"] != "directions", ["low", "high"]] = np.nan  # a tile shows a mean
    return frame


def _coefficients(runs):
    return {name: runs[0].fields[f"method.{name}"] for name in ("lam_g", "lam_p")}


def plot(frame):
    figure, axes = style.mosaic(style.PAGE, 3.9, "aa;bc", height_ratios=(1, 2))
    _directions(axes["a"], frame[frame["part"] == "directions"])
    for letter, model in zip("bc", style.MODELS, strict=True):
        _grid(figure, axes[letter], frame[frame["model"] == model])
        style.letter(axes[letter], letter, style.MODELS[model])
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
    ax.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, handletextpad=0.3).set_in_layout(False)


def _grid(figure, ax, frame):
    cells, apart = frame[frame["part"] == "grid"], frame[frame["part"].isin(APART.values())]
    table = cells.pivot(index="lam_g", columns="lam_p", values="mean")
    values = table.to_numpy()
    shown = np.append(values, apart["mean"])
    limits = {"vmin": np.nanmin(shown), "vmax": np.nanmax(shown), "cmap": "cividis"}
    rows, columns = values.shape
    mesh = ax.pcolormesh(np.arange(columns + 1), np.arange(rows + 1), values, edgecolors="white", linewidth=1, **limits)
    middle, left = (limits["vmin"] + limits["vmax"]) / 2, columns + 0.9
    points = [(x + 0.5, y + 0.5, values[y, x]) for y in range(rows) for x in range(columns)]
    for (_, one), y in zip(apart.iterrows(), (0.55 * rows, 0.05 * rows), strict=True):
        ax.pcolormesh([left, left + 1], [y, y + 1], [[one["mean"]]], edgecolors=style.INK, linewidth=0.8, **limits)
        told = f"{one['part']}\n({one['lam_g']:g}, {one['lam_p']:g})"
        ax.text(left + 0.5, y + 1.08, told, ha="center", va="bottom", fontsize=style.SMALLEST, linespacing=1)
        points.append((left + 0.5, y + 0.5, one["mean"]))
    for x, y, value in points:
        ink = "white" if value < middle else "black"
        ax.text(x, y, style.percent(value), ha="center", va="center", fontsize=style.SMALLEST, color=ink)
    ax.set_xticks(np.arange(columns) + 0.5, [f"{value:g}" for value in table.columns])
    ax.set_yticks(np.arange(rows) + 0.5, [f"{value:g}" for value in table.index])
    ax.set_xlim(0, left + 1.5)
    ax.set_xlabel(r"$\lambda_p$ (PM phase)", x=columns / 2 / (left + 1.5))
    ax.set_ylabel(r"$\lambda_g$ (GM phase)")
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = style.colour_bar(figure, mesh, ax, "accuracy (%)", pad=0.02, aspect=25)
    style.as_percent(bar.ax.yaxis)
