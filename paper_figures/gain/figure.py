"""Claim C3: where wait-free makes a run 1.5 to 2 times faster, and where it does not. No training: the clock alone.

The grid: the six fleets of the package, three seeds each; messages of 1e3 to 1e8 numbers, five per decade; generic and
personal passes of ``PASSES``; both meanings of ``block``. Cohorts and batches are those of the default experiment (20
clients, the digits split by Dirichlet 0.1, half of the clients in each of 40 rounds). T_c is upload, aggregation and
download; waiting for others comes on top of it. For equal clients the gain is 1 + min(T_p, T_c) / (T_g + max(T_p, T_c)):
it reaches 1.5 only where (T_g + T_c) / 2 <= T_p <= 2 T_c - T_g, hence nowhere if T_g > T_c or if T_g > T_p.

    python paper_figures/gain/figure.py
"""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from pflbench.clock.fleet import FLEETS
from pflbench.clock.replay import replay
from pflbench.clock.timeline import gain, gain_bound
from pflbench.core.streams import stream
from pflbench.report import style

TITLE = "Where wait-free makes a run faster, and where it does not"
CAPTION = (
    "Gain: how many times faster a run is under wait-free than under compute-and-wait, by the clock alone, without any "
    "training. A client spends T_g on the generic stage, T_p on the personal stage and T_c on upload, aggregation and "
    "download. (a, b) Theory for equal clients, whose gain is 1 + min(T_p, T_c) / (T_g + max(T_p, T_c)). (a) The gain "
    "against T_p / T_c for four ratios of T_g to T_p. (b) Lines of equal gain over both ratios; the thick line is a gain "
    "of 1.5, the shaded region inside it holds all that is above, and the dashed lines are constant ratios of T_g to T_p. "
    "(c) The clock on six fleets, with 20 clients, half of them in each of 40 rounds, two generic and two personal passes "
    "over the local data, mean over three draws of each fleet; messages grow from right to left, from a thousand to a "
    "hundred million numbers. Solid: a generic stage begins when the personal stages of all clients are over. Dashed: "
    "it waits for the client's own personal stage only. Marks are the messages of ResNet-18 (left) and of the MLP "
    "(right) on the solid lines. The broad pale line is the theory of (a) at T_g = T_p. (a, c) The shaded band is the 1.5 "
    "to 2 times that the paper claims, the grey dashed line at 2 the bound."
)
CLAIMED = (1.5, 2.0)
PASSES = ((1, 4), (1, 2), (2, 2), (2, 1))  # over the local data: generic, personal; 2 and 2 are the defaults
NUMBERS = np.logspace(3, 8, 26)
MODELS = {"MLP": 4810, "ResNet-18": 11_173_962}  # marked on the curves of the fleets
BATCHES = (4, 9, 4, 5, 1, 4, 21, 13, 3, 3, 2, 1, 2, 20, 1, 7, 16, 5, 9, 20)  # of each client, in a pass
CLIENTS, COHORT, ROUNDS = len(BATCHES), 10, 40
SEEDS = (0, 1, 2)  # of the fleets
RATIOS = np.logspace(-4, 4, 49, base=2)
THEORY = {"T_g = 0": 0.0, "T_g = T_p / 4": 0.25, "T_g = T_p / 2": 0.5, "T_g = T_p": 1.0}


def record(numbers, generic, personal):
    """The costs of the default experiment with other passes and messages."""
    batches = np.array(BATCHES)
    cohorts = [np.sort(stream(0, "cohort", r).choice(CLIENTS, COHORT, replace=False)) for r in range(ROUNDS)]
    costs = {"contribute": [(generic * batches[c]).tolist() for c in cohorts], "up": numbers, "down": numbers}
    costs |= {"personalise": [(personal * batches[c]).tolist() for c in cohorts], "bytes_per_number": 4}
    return {"experiment": {"clients": CLIENTS}, "cohorts": [c.tolist() for c in cohorts], "costs": costs}


def ratios(timeline):
    """T_g / T_c and T_p / T_c: means over clients and rounds."""
    mean = {
        stage: np.concatenate([np.diff(getattr(each, stage)) for each in timeline.rounds]).mean()
        for stage in ("generic", "personal", "download", "upload")
    }
    network = mean["download"] + mean["upload"] + np.mean([np.diff(each.aggregation) for each in timeline.rounds])
    return mean["generic"] / network, mean["personal"] / network


def cells():
    """The grid: one row per fleet, seed, passes, message and block."""
    rows = []
    for generic, personal in PASSES:
        for numbers in [*NUMBERS.astype(int).tolist(), *MODELS.values()]:
            one = record(numbers, generic, personal)
            for name, seed, block in product(FLEETS.names(), SEEDS, ("round", "client")):
                both = replay(one, name, seed=seed, block=block)
                t_g, t_p = ratios(both["compute_and_wait"])
                row = {"panel": "fleet", "series": name, "t_g": t_g, "t_p": t_p, "gain": gain(both)}
                rows.append(
                    {**row, "passes": f"{generic} + {personal}", "block": block, "numbers": numbers, "seed": seed}
                )
    return rows


def table():
    """One row per point: ``panel``; what the point belongs to; T_g / T_c, T_p / T_c; the gain."""
    theory = [
        {
            "panel": "theory",
            "series": label,
            "t_g": share * t_p,
            "t_p": t_p,
            "gain": float(gain_bound(share * t_p, t_p, 1)),
        }
        for label, share in THEORY.items()
        for t_p in RATIOS
    ]
    plane = [
        {"panel": "plane", "series": "equal clients", "t_g": t_g, "t_p": t_p, "gain": float(gain_bound(t_g, t_p, 1))}
        for t_g in RATIOS
        for t_p in RATIOS
    ]
    return pd.DataFrame([*theory, *plane, *cells()])


def shares(frame):
    """Over the grid of fleets: the share of cells that reach 1.5, in all and by block and passes; the best per fleet.

    Says where the claim holds. Whether it does is decided in claims.yaml, on the study's own runs.
    """
    grid = frame[(frame["panel"] == "fleet") & ~frame["numbers"].isin(MODELS.values())]
    reached = grid.assign(reached=grid["gain"] >= CLAIMED[0])
    share = float(reached["reached"].mean())
    best = grid.loc[grid.groupby("series")["gain"].idxmax(), ["series", "passes", "block", "numbers", "seed", "gain"]]
    return {
        "cells": len(grid),
        "share_of_cells_at_least_1.5": round(share, 3),
        "by_block_and_passes": {
            block: {p: round(float(one["reached"].mean()), 3) for p, one in rows.groupby("passes", sort=False)}
            for block, rows in reached.groupby("block", sort=False)
        },
        "best_per_fleet": best.astype({"numbers": int, "seed": int}).round({"gain": 3}).to_dict("records"),
    }


def plot(frame):
    figure, axes = style.mosaic(style.PAGE, 4.9, "ab;cc", height_ratios=(1, 1.1))
    theory, plane, fleets = axes.values()
    for axis in (theory, fleets):
        axis.axhspan(*CLAIMED, color="#F3EBD3", linewidth=0, zorder=0)
        axis.axhline(2, color=style.GREY, linewidth=0.8, linestyle=(0, (4, 2)))
        axis.set(xscale="log", ylim=(0.98, 2.06), xlabel="$T_p/T_c$", ylabel="gain of wait-free")
    theory.text(RATIOS[0] * 1.15, 2.015, "bound: 2", fontsize=style.SMALLEST, color=style.GREY)
    theory.text(RATIOS[0] * 1.15, 1.93, "claimed", fontsize=style.SMALLEST, color="#8A6D1F")
    for label, shade in zip(THEORY, ("#000000", "#08519C", "#4292C6", "#9ECAE1"), strict=True):
        own = frame[(frame["panel"] == "theory") & (frame["series"] == label)]
        theory.plot(own["t_p"], own["gain"], color=shade, linewidth=1.4, label=_math(label))
    fleets.plot(own["t_p"], own["gain"], color=shade, linewidth=2.5, label="theory, equal clients")
    theory.legend(loc="upper right", bbox_to_anchor=(1.02, 0.9), handlelength=1.2, labelspacing=0.3)
    theory.set(xlim=(RATIOS[0], RATIOS[-1]))
    _plane(plane, frame[frame["panel"] == "plane"])
    _fleets(fleets, frame[(frame["panel"] == "fleet") & (frame["passes"] == "2 + 2")])
    for axis in axes.values():
        axis.xaxis.set_major_formatter("{x:g}")
    for name, title in zip("abc", ("equal clients", "equal clients, gain", "six fleets, 2 + 2 passes"), strict=True):
        style.letter(axes[name], name, title)
    style.legend(figure, [fleets], columns=3)
    return figure


def _plane(axes, rows):
    """The gain of equal clients over both ratios; what is at least 1.5 is coloured, and lines of constant T_g / T_p."""
    x, y = np.sort(rows["t_p"].unique()), np.sort(rows["t_g"].unique())
    z = rows.pivot(index="t_g", columns="t_p", values="gain").loc[y, x].to_numpy()
    axes.contourf(x, y, z, [CLAIMED[0], CLAIMED[1]], colors=["#E5D5A0"])
    levels = (1.1, 1.25, 1.5, 1.75)
    axes.contour(x, y, z, levels, colors=style.INK, linewidths=[0.5, 0.5, 1.3, 0.5])
    for level in levels:  # at T_p = T_c the gain is 1 + T_c / (T_g + T_c)
        axes.text(1, 1.04 * (1 / (level - 1) - 1), f"{level:g}", fontsize=style.SMALLEST, ha="center", va="bottom")
    for share, shade, label in ((1, "#9ECAE1", "$T_g=T_p$"), (0.25, "#08519C", "$T_g=T_p/4$")):
        axes.plot(x, share * x, color=shade, linewidth=1.0, linestyle=(0, (4, 2)), label=label)
    axes.legend(loc="upper left", handlelength=1.6, labelspacing=0.3)
    axes.set(xscale="log", yscale="log", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel="$T_p/T_c$", ylabel="$T_g/T_c$")
    axes.yaxis.set_major_formatter("{x:g}")


def _fleets(axes, rows):
    """One curve per fleet, the mean of its seeds, as messages grow from right to left."""
    for name, look in style.fleet_looks(FLEETS.names()).items():
        for block, dash in (("round", "-"), ("client", (0, (2, 1)))):
            own = rows[(rows["series"] == name) & (rows["block"] == block)]
            own = own.groupby("numbers", as_index=False)[["t_p", "gain"]].mean()
            label = look.title if block == "round" else None
            line = look.line(linestyle=dash, label=label, linewidth=1.0) | ({} if label else {"marker": ""})
            marked = np.flatnonzero(own["numbers"].isin(MODELS.values())).tolist()
            axes.plot(own["t_p"], own["gain"], markevery=marked, **line)
    axes.plot([], [], color=style.GREY, linewidth=1.0, linestyle=(0, (2, 1)), label="held up by its own work only")
    axes.text(0.0095, 1.93, "claimed", fontsize=style.SMALLEST, color="#8A6D1F")
    axes.text(
        250, 1.6, "marks: ResNet-18 (left)\nand MLP (right)", fontsize=style.SMALLEST, ha="right", color=style.GREY
    )
    axes.set(xlim=(2**-7, 300))


def _math(label):
    return "$" + label.replace(" ", "").replace("=", " = ") + "$"


def draw(folder=Path(__file__).parent / "out"):
    """The figure; the whole grid as CSV, of which (c) shows the means over seeds at 2 + 2 passes; and the shares."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = table()
    frame.to_csv(folder / "gain.csv", index=False, float_format="%.6g")
    (folder / "shares.json").write_text(json.dumps(shares(frame), indent=1) + "\n", encoding="utf-8")
    return [*style.save(plot, frame, folder / "gain"), folder / "gain.csv", folder / "shares.json"]


if __name__ == "__main__":
    for path in draw():
        print("wrote", path.name)
