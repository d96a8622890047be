"""Divergence between GM and PMs per frequency band over the rounds, against the same models with shuffled entries."""

import numpy as np
import pandas as pd

from pflbench.report import style
from pflbench.report.claims import doublings
from pflbench.report.figures import estimate

LOOKS = {
    "spectral": style.look("spectral"),
    "none": style.variant(0, "no coupling (FedAvg and local)"),
    "ditto": style.look("ditto"),
}


def table(study):
    (setting,) = study.settings
    rows = []
    for label in study.labels:
        runs = study.collect(label=label, setting=setting)
        frames = [pd.read_csv(run.extra("bands")) for run in runs]
        drawn = _three(frames[0]["round"])
        for (round, permuted), first in frames[0].groupby(["round", "permuted"]):
            head = {"label": label, "round": round, "permuted": permuted}
            per_seed = [f[(f["round"] == round) & (f["permuted"] == permuted)]["relative"].to_numpy() for f in frames]
            for band in range(len(first) if round in drawn else 0):
                logs = estimate(runs, [np.log(each[band]) for each in per_seed])  # a geometric mean over seeds
                logs |= {name: np.exp(logs[name]) for name in ("mean", "low", "high")}
                rows.append({"part": "bands", **head, "band": band + 1, **logs})
            rows.append({"part": "high over low", **head, **estimate(runs, map(doublings, per_seed))})
    frame = pd.DataFrame(rows).astype({"band": "Int64"})
    frame.loc[frame["permuted"] == 1, ["low", "high"]] = np.nan  # the control is drawn without its intervals
    return frame


def _three(rounds):
    """The first round, the last, and the one nearest to a quarter of the way, of those with bands."""
    return sorted({min(rounds, key=lambda each: abs(each - wish)) for wish in (1, max(rounds) / 4, max(rounds))})


def plot(frame):
    labels = style.ordered(frame, "label")
    bands, ratios = frame[frame["part"] == "bands"], frame[frame["part"] != "bands"]
    figure, axes = style.new(style.PAGE, 1.85 * ((len(labels) + 2) // 2) + 0.5, (len(labels) + 2) // 2, 2)
    *own_axes, ax = axes.flat[: len(labels) + 1]
    for spare in axes.flat[len(labels) + 1 :]:
        spare.set_visible(False)
    rounds = sorted(bands["round"].unique())
    shades = dict(zip(rounds, ("#9ECAE1", "#4292C6", "#08306B"), strict=False))
    for one, letter, label in zip(own_axes, "abc", labels, strict=False):
        for round in rounds:
            for permuted in (0, 1):
                own = bands[(bands["label"] == label) & (bands["round"] == round) & (bands["permuted"] == permuted)]
                dash, name = ((0, (2, 1.5)), None) if permuted else ("-", f"round {round}")
                line = {"color": shades[round], "linestyle": dash, "linewidth": 1.1, "label": name}
                one.plot(own["band"], own["mean"], **line) if permuted else style.band(one, own, "band", line)
        one.set_yscale("log")
        one.yaxis.set_major_formatter("{x:g}")
        one.set_xticks(sorted(bands["band"].unique()))
        one.set_xlabel("band, low to high")
        one.set_ylabel("nats per unit of mass")
        style.letter(one, letter, LOOKS[label].title.split(" (")[0])
    limits = [one.get_ylim() for one in own_axes]
    for one in own_axes:
        one.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    for label in labels:
        for permuted in (0, 1):
            own = ratios[(ratios["label"] == label) & (ratios["permuted"] == permuted)]
            look = LOOKS[label]
            if permuted:
                ax.plot(own["round"], own["mean"], color=look.colour, linestyle=(0, (2, 1.5)), linewidth=0.9)
            else:
                style.band(ax, own, "round", look.line(linestyle="-", label=look.title.split(" (")[0]))
    ax.axhline(0, color=style.GREY, linewidth=0.6)
    ax.set_xscale("log")
    ticks = sorted(set(ratios["round"]))
    ax.set_xticks(ticks, ticks)
    ax.minorticks_off()
    ax.set_xlabel("round")
    ax.set_ylabel("high over low (doublings)")
    style.letter(ax, "abcd"[len(labels)], "highest against lowest")
    ax.plot([], [], color=style.INK, linestyle=(0, (2, 1.5)), linewidth=0.9, label="shuffled entries (control)")
    style.legend(figure, axes.flat, columns=4)
    return figure
