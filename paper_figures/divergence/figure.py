"""Five ways to compare two models, every one over the same number of coefficients; and Ditto, which pulls one way."""

import numpy as np
import pandas as pd

from pflbench import style
from pflbench.claims import tuned
from pflbench.draw import accuracy, estimate

LOOKS = {
    "kl": style.Look("KL(PM || GM)", "#D55E00", "*"),
    "kl_reverse": style.Look("KL(GM || PM)", "#E69F00", "X"),
    "symmetric": style.Look("symmetric KL", "#CC79A7", "D"),
    "amplitude_l2": style.Look("L2 of amplitudes", "#009E73", "^"),
    "complex_l2": style.Look("complex L2 (weights)", "#56B4E9", "P"),
    "ditto": style.Look("Ditto (weights, PM only)", "#0072B2", "s"),
}


def table(study):
    (setting,) = study.settings
    rows = []
    for label in study.labels:
        fields = ["method.lam"] if label == "ditto" else ["method.lam_g", "method.lam_p"]
        choices = study.points(fields, label=label)
        runs = [study.collect(label=label, setting=setting, **dict(zip(fields, c, strict=True))) for c in choices]
        for model in style.MODELS:
            values = np.array([[accuracy(run, model) for run in row] for row in runs])
            for choice, row, own in zip(choices, runs, values, strict=True):
                head = {
                    "label": label,
                    "model": model,
                    "part": "each",
                    "coefficients": " ".join(map("{:g}".format, choice)),
                }
                rows.append({**head, **estimate(row, own)})
            best = tuned(runs, values)
            head = {"label": label, "model": model, "part": "tuned", "coefficients": "best on the other seeds"}
            rows.append({**head, **estimate(best, [accuracy(run, model) for run in best])})
    return pd.DataFrame(rows)


def plot(frame):
    figure, axes = style.new(style.PAGE, 2.4, 1, 2, sharey=True)
    labels = [label for label in LOOKS if label in set(frame["label"])]
    for ax, (letter, model) in zip(axes[0], zip("ab", style.MODELS, strict=True), strict=True):
        own = frame[frame["model"] == model]
        best = own[own["part"] == "tuned"]
        start = best["mean"].min() - 2 * max(0.01, best["mean"].max() - best["mean"].min())
        for place, label in enumerate(labels):
            line = LOOKS[label].line(linestyle="none")
            each = own[(own["label"] == label) & (own["part"] == "each")]
            left = each[each["mean"] < start]
            shown = each[each["mean"] >= start]
            ax.plot(shown["mean"], [place + 0.22] * len(shown), "o", color=line["color"], alpha=0.5, markersize=2.5)
            if len(left):
                ax.plot(start, place + 0.22, marker=8, color=line["color"], markersize=4, clip_on=False)
                told = ", ".join(style.percent(value) for value in sorted(left["mean"]))
                ax.annotate(f"   {told}", (start, place + 0.22), color=line["color"], fontsize=5.5, va="center")
            style.dots(ax, best[best["label"] == label], [place - 0.12], line, horizontal=True)
        ax.set_xlim(start, min(1.002, ax.get_xlim()[1]))
        ax.set_yticks(range(len(labels)), [LOOKS[label].title for label in labels])
        ax.set_ylim(len(labels) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("accuracy (%)")
        style.as_percent(ax.xaxis)
        style.letter(ax, letter, style.MODELS[model])
    return figure
