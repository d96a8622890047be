"""The released code, one repair after another, beside the clean definition and baselines without spectra."""

import pandas as pd

from pflbench.report import style
from pflbench.report.figures import accuracy_rows

STATES = {
    "released": "as released",
    "unaliased": "+ un-aliased",
    "reference": "+ reference is the PM",
    "differentiable": "+ differentiable",
    "clean": "clean definition",
    "ditto": "Ditto",
    "fedavg": "FedAvg",
    "local_only": "Local-only",
}
BASE = {"GM": "fedavg", "PM": "local_only"}


def table(study):
    (setting,) = study.settings
    rows = []
    for label in [label for label in STATES if label in study.labels]:
        rows += accuracy_rows(study.collect(label=label, setting=setting), {"part": "states", "label": label})
    for beta in study.values("method.beta", label="beta"):
        runs = study.collect(label="beta", setting=setting, **{"method.beta": beta})
        rows += accuracy_rows(runs, {"part": "beta", "label": "released", "beta": beta})
    return pd.DataFrame(rows)


def plot(frame):
    figure, axes = style.new(style.PAGE, 2.6, 1, 2, width_ratios=(1.35, 1))
    states, betas = frame[frame["part"] == "states"], frame[frame["part"] == "beta"]
    labels = style.ordered(states, "label")
    for model, look in style.KINDS.items():
        line = look.line(linestyle="none", markersize=4.5)
        own, shift = states[states["model"] == model], -0.14 if model == "GM" else 0.14
        style.dots(axes[0, 0], own, [labels.index(label) + shift for label in own["label"]], line, horizontal=True)
        own = betas[betas["model"] == model].sort_values("beta")
        if len(own):
            axes[0, 1].plot(range(len(own)), own["mean"], color=look.colour, linewidth=1)
            style.dots(axes[0, 1], own, range(len(own)), line)
            axes[0, 1].set_xticks(range(len(own)), [f"{value:g}" for value in own["beta"]])
        for base in own_mean(states, BASE[model], model):
            axes[0, 0].axvline(base, color=look.colour, linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=0)
            axes[0, 1].axhline(base, color=look.colour, linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=0)
    axes[0, 0].set_yticks(range(len(labels)), [STATES[label] for label in labels])
    axes[0, 0].set_ylim(len(labels) - 0.4, -0.6)
    axes[0, 0].tick_params(axis="y", length=0)
    axes[0, 0].set_xlabel("accuracy (%)")
    axes[0, 1].set_xlabel("$\\beta$ of the pull\n(code: 0.2, README: 5)")
    axes[0, 1].set_ylabel("accuracy (%)")
    axes[0, 1].set_xlim(-0.3, betas["beta"].nunique() - 0.7)
    style.as_percent(axes[0, 0].xaxis)
    style.as_percent(axes[0, 1].yaxis)
    style.letter(axes[0, 0], "a", "states of the code")
    style.letter(axes[0, 1], "b", "as released, other pulls")
    style.legend(figure, axes.flat)
    return figure


def own_mean(states, label, model):
    return states[(states["label"] == label) & (states["model"] == model)]["mean"]
