"""Figures of finished results on the clock: total times and accuracy against seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pflbench.clock.replay import SHORT, Row
from pflbench.report import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


BARS = {"compute_and_wait": style.PALE, "wait_free": "#0072B2"}


def draw(plot: "Callable[[pd.DataFrame], Figure]", rows: list[Row], stem: Path) -> list[Path]:
    """``plot`` of the rows as PDF, PNG and SVG, and as CSV exactly what it shows."""
    frame = pd.DataFrame(rows)
    frame.to_csv(stem.with_suffix(".csv"), index=False)
    return [*style.save(plot, frame, stem), stem.with_suffix(".csv")]


def plot_times(frame: pd.DataFrame) -> "Figure":
    """Total time of every result, a bar per protocol. frame: ``cost_rows``."""
    names, most = labels(frame), frame["total_s"].max()
    figure, panels = style.new(5.2, 0.75 + 0.36 * len(names))
    axes = panels[0, 0]
    for place, (_, mine) in enumerate(frame.groupby("address", sort=False)):
        for row in mine.to_dict("records"):
            total, free = row["total_s"], row["protocol"] == "wait_free"
            at = place + 0.4 * (free - 0.5) * (len(mine) > 1)
            axes.barh(at, total, 0.36, color=BARS[row["protocol"]], label=SHORT[row["protocol"]])
            gained = f"{row['gain']:.2f} times faster" if row["gain"] >= 1.005 else "no gain"
            text = f"{total:,.0f} s  {gained}" if free else f"{total:,.0f} s"
            axes.text(total + 0.01 * most, at, text, va="center", fontsize=6.5)
    axes.set_yticks(range(len(names)), list(names.values()))
    rounds = " or ".join(str(count) for count in sorted(set(frame["rounds"])))
    axes.set(xlabel=f"seconds for {rounds} rounds on fleet {frame['fleet'].iloc[0]}", xlim=(0, 1.3 * most))
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(False)
    axes.tick_params(axis="y", length=0)
    style.legend(figure, [axes])
    return figure


def plot_curves(frame: pd.DataFrame) -> "Figure":
    """Accuracy against seconds, a panel per model. frame: ``curve_rows``."""
    models, names = style.ordered(frame, "model"), labels(frame)
    figure, panels = style.new(style.PAGE, 2.8, 1, len(models), sharex=True, sharey=True)
    several = frame["protocol"].nunique() > 1
    for axes, model in zip(panels[0], models, strict=True):
        for (address, protocol), mine in frame[frame["model"] == model].groupby(["address", "protocol"], sort=False):
            slow = several and protocol == "compute_and_wait"
            line = style.look(mine["method"].iloc[0]).line(linestyle="--" if slow else "-")
            line |= {"label": None, "marker": ""} if slow else {"label": names[str(address)]}
            axes.plot(mine["seconds"], mine["accuracy"], **line, markevery=max(1, len(mine) // 8))
        axes.set(title=style.MODELS[model], xlabel="seconds on the clock", xscale="log")
        axes.xaxis.set_major_formatter("{x:g}")
        style.as_percent(axes.yaxis)
    if several:
        panels[0, 0].plot([], [], "--", color=style.GREY, linewidth=1.2, label="under compute-and-wait")
    panels[0, 0].set_ylabel("accuracy (%)")
    style.legend(figure, panels.flat, columns=min(3, len(names) + several))
    return figure


def labels(frame: pd.DataFrame) -> dict[str, str]:
    """Address -> the name of its method, with the start of the address where the method appears more than once."""
    methods = dict(zip(frame["address"], frame["method"], strict=True))
    several, title = list(methods.values()), style.look
    return {
        key: title(name).title if several.count(name) == 1 else f"{title(name).title} {key[:6]}"
        for key, name in methods.items()
    }
