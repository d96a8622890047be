"""Accuracy against what it costs: bytes of a client, and seconds on the clock."""

import numpy as np
import pandas as pd

from pflbench.clock import replay
from pflbench.report import style
from pflbench.report.figures import curve_of, estimate

FLEET = "lognormal"
AXES = {"bytes": "sent and received per client (MB)", "seconds": f"seconds on the fleet {style.fleet(FLEET)}"}
WAITING = style.Look("Spectral, compute-and-wait", "#4A1D00", "", (0, (2.5, 1.5)))


def table(study):
    (setting,) = study.settings
    rows = []
    for label in study.labels:
        runs = study.collect(label=label, setting=setting)
        clocks = [replay.replay(run.record, FLEET, seed=run.seed) for run in runs]
        protocols = ["wait_free", "compute_and_wait"] if label == "spectral" else ["wait_free"]
        for model in style.MODELS:
            curves = [curve_of(run, model) for run in runs]
            if any(curve is None for curve in curves):
                continue
            for number, round in enumerate(runs[0].record["curve"]["rounds"]):
                head = {"method": label, "model": model, "round": round}
                accuracy = estimate(runs, [curve[number] for curve in curves])
                sent = np.mean([megabytes(run.record, round) for run in runs])
                if sent:
                    rows.append({**head, "axis": "bytes", "protocol": "any", "cost": sent, **accuracy})
                for protocol in protocols:
                    seconds = np.mean([clock[protocol].ends[round - 1] for clock in clocks])
                    rows.append({**head, "axis": "seconds", "protocol": protocol, "cost": seconds, **accuracy})
    return pd.DataFrame(rows).drop(columns=["low", "high"])  # means alone are drawn


def megabytes(record, round):
    """Up and down over the first ``round`` rounds, mean over all clients, in 10^6 bytes."""
    costs, clients = record["costs"], record["experiment"]["clients"]
    visits = sum(len(cohort) for cohort in record["cohorts"][:round])
    return visits / clients * (costs["up"] + costs["down"]) * costs["bytes_per_number"] / 1e6


def plot(frame):
    models = [model for model in style.MODELS if model in set(frame["model"])]
    figure, axes = style.new(style.PAGE, 0.5 + 1.75 * len(models), len(models), 2, sharey="row")
    for row, model in enumerate(models):
        for column, (axis, title) in enumerate(AXES.items()):
            ax, part = axes[row, column], frame[(frame["model"] == model) & (frame["axis"] == axis)]
            for place, method in enumerate(style.ordered(frame, "method")):
                for protocol in style.ordered(part[part["method"] == method], "protocol"):
                    own = part[(part["method"] == method) & (part["protocol"] == protocol)]
                    big = method == "spectral"
                    line = style.look(method).line(linewidth=1.8 if big else 1.1, zorder=3 if big else 2)
                    if protocol == "compute_and_wait":
                        line = WAITING.line(linewidth=1, zorder=4)
                    every = (2 * place, max(1, len(own) // 4))
                    ax.plot(own["cost"], own["mean"], markevery=every, **line)
            style.log_axis(ax)
            style.as_percent(ax.yaxis)
            if row == len(models) - 1:
                ax.set_xlabel(title)
        axes[row, 0].set_ylim(max(0, frame[frame["model"] == model]["mean"].min() - 0.03), 1.005)
        axes[row, 0].set_ylabel(f"{model} accuracy (%)")
    style.legend(figure, axes.flat, columns=3)
    return figure
