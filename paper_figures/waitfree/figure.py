"""Run time under both protocols on the package's fleets, replayed from finished runs."""

import pandas as pd

from pflbench.clock import replay
from pflbench.clock.fleet import FLEETS
from pflbench.clock.timeline import PROTOCOLS, gain
from pflbench.report import style
from pflbench.report.figures import estimate

LOOKS = {
    "compute_and_wait": style.Look("compute-and-wait", "#9A9A9A", "8"),
    "wait_free": style.Look("wait-free", "#222222", "d"),
}


def table(study):
    (setting,) = study.settings
    rows, shown = [], "spectral" if "spectral" in study.labels else study.labels[0]
    for fleet in FLEETS.names():
        for label in study.labels:
            runs = study.collect(label=label, setting=setting)
            both = [replay.replay(run.record, fleet, seed=run.seed) for run in runs]
            head = {"fleet": fleet, "method": label, "rounds": runs[0].record["rounds"]}
            for protocol in PROTOCOLS if label == shown else ():
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
    totals = frame[frame["measure"] == "seconds"]
    shown = totals["method"].iloc[0]
    style.log_axis(axes[0, 0], subs=(1,))
    seen = totals["low"].where(totals["low"] > 0).fillna(totals["mean"])  # an interval may pass 0, where no log reaches
    axes[0, 0].set_xlim(0.8 * seen.min(), 1.25 * totals["high"].fillna(totals["mean"]).max())
    for (protocol, look), shift in zip(LOOKS.items(), (0.13, -0.13), strict=True):
        own = totals[totals["protocol"] == protocol].set_index("fleet").loc[fleets]
        places = [n + shift for n in range(len(fleets))]
        style.dots(axes[0, 0], own, places, look.line(linestyle="none"), horizontal=True)
        style.heads(axes[0, 0], own, places, look.colour)
    axes[0, 0].set_xlabel(f"seconds for all {int(frame['rounds'].max())} rounds")
    axes[0, 0].set_yticks(range(len(fleets)), [style.fleet(name) for name in fleets])
    axes[0, 0].tick_params(axis="y", length=0)
    axes[0, 0].set_ylim(-0.6, len(fleets) - 0.4)
    style.letter(axes[0, 0], "a", f"{style.look(shown).title}: total time")
    axes[0, 1].axvspan(1.5, 2, color="#F0E442", alpha=0.3, linewidth=0, label="claimed: 1.5 to 2 times")
    axes[0, 1].axvline(2, color=style.INK, linewidth=0.8, linestyle=(0, (4, 2)), label="bound: 2 times")
    axes[0, 1].set_xlim(0.95, 2.08)
    methods = style.ordered(gains, "method")
    for place, method in enumerate(methods):
        own = gains[gains["method"] == method].set_index("fleet").loc[fleets]
        shift = 0.16 * (place - (len(methods) - 1) / 2)
        line, places = style.look(method).line(linestyle="none"), [n + shift for n in range(len(fleets))]
        style.dots(axes[0, 1], own, places, line, horizontal=True)
        style.heads(axes[0, 1], own, places, line["color"])
    axes[0, 1].set_xlabel("times faster than compute-and-wait")
    style.letter(axes[0, 1], "b", "gain of wait-free")
    style.legend(figure, axes.flat, columns=4, handlelength=1.6)
    return figure
