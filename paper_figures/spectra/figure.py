"""Divergence between GM and PMs per frequency band over the rounds, against the same models with shuffled entries."""

import numpy as np
import pandas as pd

from pflbench import style
from pflbench.claims import doublings
from pflbench.draw import estimate

LOOKS = {
    "spectral": style.look("spectral"),
    "none": style.Look("no coupling (FedAvg and local)", "#767676", "v", (0, (1, 1))),
    "ditto": style.look("ditto"),
}


def table(study):
    (setting,) = study.settings
    rows = []
    for label in study.labels:
        runs = study.collect(label=label, setting=setting)
        frames = [pd.read_csv(run.extra("bands")) for run in runs]
        for (round, permuted), first in frames[0].groupby(["round", "permuted"]):
            head = {"label": label, "round": round, "permuted": permuted}
            per_seed = [f[(f["round"] == round) & (f["permuted"] == permuted)]["relative"].to_numpy() for f in frames]
            for band in range(len(first)):
                logs = estimate(runs, [np.log(each[band]) for each in per_seed])  # a geometric mean over seeds
                logs |= {name: np.exp(logs[name]) for name in ("mean", "low", "high")}
                rows.append({"part": "bands", **head, "band": band, **logs})
            rows.append({"part": "high over low", **head, **estimate(runs, map(doublings, per_seed))})
    return pd.DataFrame(rows)


def plot(frame):
    labels = style.ordered(frame, "label")
    bands, ratios = frame[frame["part"] == "bands"], frame[frame["part"] != "bands"]
    figure, axes = style.new(style.PAGE, 2.5, 1, len(labels) + 1, width_ratios=[1] * len(labels) + [1.25])
    last = bands["round"].max()
    rounds = sorted({min(bands["round"], key=lambda each: abs(each - wish)) for wish in (1, last / 4, last)})
    shades = dict(zip(rounds, ("#9ECAE1", "#4292C6", "#08306B"), strict=False))
    for ax, letter, label in zip(axes[0], "abc", labels, strict=False):
        for round in rounds:
            for permuted in (0, 1):
                own = bands[(bands["label"] == label) & (bands["round"] == round) & (bands["permuted"] == permuted)]
                own = own.assign(band=own["band"] + 1)
                dash, name = ((0, (2, 1.5)), None) if permuted else ("-", f"round {round}")
                line = {"color": shades[round], "linestyle": dash, "linewidth": 1.1, "label": name}
                ax.plot(own["band"], own["mean"], **line) if permuted else style.band(ax, own, "band", line)
        ax.set_yscale("log")
        ax.set_xticks([1, 4, 8])
        ax.set_xlabel("band, low to high")
        style.letter(ax, letter, LOOKS[label].title.split(" (")[0])
    axes[0, 0].set_ylabel("nats per unit of mass")
    limits = [ax.get_ylim() for ax in axes[0, :-1]]
    for ax in axes[0, :-1]:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    for ax in axes[0, 1:-1]:
        ax.tick_params(labelleft=False)
    ax = axes[0, -1]
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
    style.legend(figure, axes.flat)
    return figure
