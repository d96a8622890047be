"""Run time under both protocols on the package's fleets, replayed from finished runs."""

import pandas as pd

from pflbench import replay, style
from pflbench.draw import estimate
from pflbench.timeline import PROTOCOLS, fleet_names, gain

LOOKS = {
    "compute_and_wait": style.Look("compute-and-wait", "#9A9A9A", "s"),
    "wait_free": style.Look("wait-free", "#222222", "o"),
}


def table(study):
    (setting,) = study.settings
    rows = []
    for fleet in fleet_names():
        for label in study.labels:
            runs = study.collect(label=label, setting=setting)
            both = [replay.replay(run.record, fleet, seed=run.seed) for run in runs]
            head = {"fleet": fleet, "method": label, "rounds": runs[0].record["rounds"]}
            for protocol in PROTOCOLS:
                seconds = [timelines[protocol].total_s for timelines in both]
                rows.append({"measure": "seconds", "protocol": protocol, **head, **estimate(runs, seconds)})
            rows.append({"measure": "gain", "protocol": "wait_free", **head, **estimate(runs, map(gain, both))})
    frame = pd.DataFrame(rows)
    order = frame[(frame["measure"] == "gain") & (frame["method"] == study.labels[-1])].sort_values("mean")["fleet"]
    return frame.assign(order=frame["fleet"].map({fleet: n for n, fleet in enumerate(order)})).sort_values(
        ["order", "measure", "method"], kind="stable"
    )


def plot(frame):
    fleets, gains = style.ordered(frame, "fleet"), frame[frame["measure"] == "gain"]
    figure, axes = style.new(style.PAGE, 2.7, 1, 2, sharey=True)
    shown = "spectral" if "spectral" in set(frame["method"]) else frame["method"].iloc[0]
    totals = frame[(frame["measure"] == "seconds") & (frame["method"] == shown)]
    pair = totals.pivot(index="fleet", columns="protocol", values="mean").loc[fleets]
    axes[0, 0].hlines(range(len(fleets)), pair["wait_free"], pair["compute_and_wait"], color=style.PALE, linewidth=2.5)
    for protocol, look in LOOKS.items():
        own = totals[totals["protocol"] == protocol]
        line = {"color": look.colour, "marker": look.marker, "markersize": 5, "label": look.title}
        style.dots(axes[0, 0], own, range(len(fleets)), line, horizontal=True)
    axes[0, 0].set_xscale("log")
    axes[0, 0].set_xlabel(f"seconds for all {int(frame['rounds'].max())} rounds")
    axes[0, 0].set_yticks(range(len(fleets)), fleets)
    axes[0, 0].tick_params(axis="y", length=0)
    axes[0, 0].set_ylim(-0.6, len(fleets) - 0.4)
    style.letter(axes[0, 0], "a", f"{style.look(shown).title}: total time")
    axes[0, 1].axvspan(1.5, 2, color="#F0E442", alpha=0.3, linewidth=0, label="claimed: 1.5 to 2 times")
    axes[0, 1].axvline(2, color=style.INK, linewidth=0.8, linestyle=(0, (4, 2)), label="bound")
    methods = style.ordered(gains, "method")
    for place, method in enumerate(methods):
        own = gains[gains["method"] == method].set_index("fleet").loc[fleets]
        shift = 0.16 * (place - (len(methods) - 1) / 2)
        line = style.look(method).line(linestyle="none")
        style.dots(axes[0, 1], own, [n + shift for n in range(len(fleets))], line, horizontal=True)
    axes[0, 1].set_xlim(0.95, 2.08)
    axes[0, 1].set_xlabel("times faster than compute-and-wait")
    style.letter(axes[0, 1], "b", "gain of wait-free")
    style.legend(figure, axes.flat, columns=8, handlelength=1.6)
    return figure
