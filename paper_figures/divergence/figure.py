"""Five ways to compare two models, every one over the same number of coefficients; and Ditto, which pulls one way."""

import numpy as np
import pandas as pd

from pflbench.report import style
from pflbench.report.claims import tuned
from pflbench.report.figures import accuracy, estimate

LOOKS = {
    "kl": style.own("spectral", "KL(PM || GM)"),
    "kl_reverse": style.variant(0, "KL(GM || PM)"),
    "symmetric": style.variant(1, "symmetric KL"),
    "amplitude_l2": style.variant(2, "L2 of amplitudes"),
    "complex_l2": style.variant(3, "complex L2 (weights)"),
    "ditto": style.own("ditto", "Ditto (weights, PM only)"),
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
                rows.append({**head, **estimate(row, own), "low": np.nan, "high": np.nan})  # drawn without an interval
            best = tuned(runs, values)
            head = {"label": label, "model": model, "part": "tuned", "coefficients": "best on the other seeds"}
            rows.append({**head, **estimate(best, [accuracy(run, model) for run in best])})
    return pd.DataFrame(rows)


def plot(frame):
    figure, axes = style.new(style.PAGE, 2.6, 1, 2, sharey=True)
    labels = [label for label in LOOKS if label in set(frame["label"])]
    for ax, (letter, model) in zip(axes[0], zip("ab", style.MODELS, strict=True), strict=True):
        own = frame[frame["model"] == model]
        best = own[own["part"] == "tuned"]
        ax.set_ylim(len(labels) - 0.4, -0.6)
        ax.set_xlim(*_limits(best))
        start = ax.get_xlim()[0]
        for place, label in enumerate(labels):
            line = LOOKS[label].line(linestyle="none")
            each = own[(own["label"] == label) & (own["part"] == "each")]
            left = each[each["mean"] < start]
            shown = each[each["mean"] >= start]
            ax.plot(shown["mean"], [place + 0.22] * len(shown), "o", color=line["color"], alpha=0.5, markersize=2.5)
            if len(left):
                ax.plot(start, place + 0.22, marker="<", color=line["color"], markersize=4, clip_on=False)
                told = ", ".join(style.percent(value) for value in sorted(left["mean"]))
                place_of = {"fontsize": style.SMALLEST, "va": "top", "textcoords": "offset points"}
                ax.annotate(told, (start, place + 0.22), color=line["color"], xytext=(3, -3), **place_of)
            tuned = best[best["label"] == label]
            style.dots(ax, tuned, [place - 0.12], line, horizontal=True)
            style.heads(ax, tuned, [place - 0.12], line["color"])
        ax.set_yticks(range(len(labels)), [LOOKS[label].title for label in labels])
        ax.tick_params(axis="y", length=0)
        ax.locator_params(axis="x", nbins=6)
        ax.set_xlabel("accuracy (%)")
        style.as_percent(ax.xaxis)
        style.letter(ax, letter, style.MODELS[model])
    return figure


def _limits(best):
    """From the lowest interval to the highest, within 0 and 100 %, at most five times as wide as the means lie apart."""
    low, high = best["low"].fillna(best["mean"]).min(), best["high"].fillna(best["mean"]).max()
    reach = 5 * max(0.02, best["mean"].max() - best["mean"].min())
    low, high = max(low, best["mean"].min() - reach), min(high, best["mean"].max() + reach)
    pad = 0.04 * (high - low)
    return max(-0.002, low - pad), min(1.002, high + pad)
