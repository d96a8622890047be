"""Every client by itself: its accuracy, whether it is harmed, and what it gains given its size and skew."""

import numpy as np
import pandas as pd

from pflbench.data.splits import card_of
from pflbench.report import stats, style
from pflbench.report.figures import estimate

QUARTERS = 4


def table(study):
    (setting,) = study.settings
    frames = []
    alone = study.collect(label="local_only", setting=setting)
    for label in study.labels:
        runs = study.collect(label=label, setting=setting)
        each = pd.concat([clients(run, reference) for run, reference in zip(runs, alone, strict=True)])
        spread = np.quantile(each["accuracy"], [0.1, 0.25, 0.5, 0.75, 0.9])
        own = {"method": label, "part": "distribution", "seeds": len(runs), "runs": each["runs"].iloc[0]}
        own |= {"runs": " ".join(run.address for run in runs), "worst_decile": _worst(runs)}
        frames.append(pd.DataFrame([{**own, **dict(zip(("p10", "p25", "p50", "p75", "p90"), spread, strict=True))}]))
        if label == "local_only":
            continue
        harmed = [float((part["gain"] < 0).mean()) for _, part in each.groupby("seed", sort=True)]
        frames.append(pd.DataFrame([{"method": label, "part": "harmed", **estimate(runs, harmed)}]))
        frames.append(each.drop(columns="accuracy").assign(method=label, part="client"))
        for axis in ("size", "skew"):
            part = pd.qcut(each[axis].rank(method="first"), QUARTERS, labels=False)
            means = each.groupby(part)[[axis, "gain"]].mean().assign(method=label, part=f"by {axis}", runs=own["runs"])
            frames.append(means)
    return pd.concat(frames, ignore_index=True)


def clients(run, reference):
    """One row per client of one run: accuracy, gain over local-only, training samples, skew of its labels."""
    tested = np.asarray(run.record["clients"]["test"])
    mine, theirs = (np.asarray(each.record["curve"]["personal"][-1]) / tested for each in (run, reference))
    counts = np.asarray(card_of(reference.extra("split"))["class_counts"], dtype=float)
    share = counts / counts.sum(1, keepdims=True)
    skew = np.abs(share - counts.sum(0) / counts.sum()).sum(1) / 2
    columns = {"client": range(len(mine)), "accuracy": mine, "gain": mine - theirs, "size": counts.sum(1), "skew": skew}
    return pd.DataFrame({"seed": run.seed, **columns, "runs": f"{run.address} {reference.address}"})


def _worst(runs):
    values = [(run.record["curve"]["personal"][-1], run.record["clients"]["test"]) for run in runs]
    return float(np.mean([stats.worst_decile(np.asarray(correct), np.asarray(tested)) for correct, tested in values]))


def plot(frame):
    figure, axes = style.new(style.PAGE, 4.6, 2, 2, height_ratios=(1, 1.3))
    whole, harmed = frame[frame["part"] == "distribution"], frame[frame["part"] == "harmed"]
    methods = style.ordered(whole, "method")
    _distribution(axes[0, 0], whole)
    ax = axes[0, 1]
    ax.set_yticks([])
    ax.set_ylim(len(methods) - 0.4, -0.6)
    ax.set_xlim(-0.02, min(1.02, harmed["high"].fillna(harmed["mean"]).max() + 0.03))
    others = [method for method in methods if method != "local_only"]
    for method in others:
        look, own, place = style.look(method), harmed[harmed["method"] == method], methods.index(method)
        style.dots(ax, own, [place], look.line(), horizontal=True)
        style.heads(ax, own, [place], look.colour)
    ax.set_xlabel("clients (%)")
    style.as_percent(ax.xaxis)
    style.letter(ax, "b", "worse off than alone")
    for ax, axis in zip(axes[1], ("size", "skew"), strict=True):
        for method in others:
            look = style.look(method)
            points = frame[(frame["part"] == "client") & (frame["method"] == method)]
            ax.scatter(points[axis], points["gain"], s=5, color=look.colour, alpha=0.35, linewidth=0, zorder=1)
            means = frame[(frame["part"] == f"by {axis}") & (frame["method"] == method)]
            ax.plot(means[axis], means["gain"], **look.line(zorder=3))
        ax.axhline(0, color=style.GREY, linewidth=0.7)
        _points(ax, frame[frame["part"] == "client"]["gain"])
    style.log_axis(axes[1, 0])
    axes[1, 0].set_xlabel("training samples of the client")
    axes[1, 1].set_xlabel("skew of its labels (total variation distance)")
    axes[1, 0].set_ylabel("points above local-only")
    style.letter(axes[1, 0], "c", "gain against size")
    style.letter(axes[1, 1], "d", "gain against skew")
    style.legend(figure, [axes[1, 0], axes[0, 0]], columns=4)
    return figure


def _points(ax, gains):
    """A y axis of percentage points that is linear within 5 and logarithmic beyond, and leaves no client out."""
    ax.set_yscale("symlog", linthresh=0.05, linscale=1.2)
    marks = [0, *(sign * mark for mark in (0.02, 0.05, 0.1, 0.2, 0.5, 1) for sign in (-1, 1))]
    low, high = min(-0.05, 1.25 * gains.min()), max(0.05, 1.25 * gains.max())
    ax.set_yticks([mark for mark in sorted(marks) if low <= mark <= high])
    ax.set_ylim(low, high)
    ax.minorticks_off()
    style.as_percent(ax.yaxis)


def _distribution(ax, frame):
    methods = style.ordered(frame, "method")
    for place, (_, row) in enumerate(frame.iterrows()):
        look = style.look(row["method"])
        ax.plot([row["p10"], row["p90"]], [place, place], color=look.colour, linewidth=0.9)
        ax.barh(place, row["p75"] - row["p25"], left=row["p25"], height=0.5, color=look.colour, alpha=0.35)
        ax.plot([row["p50"]] * 2, [place - 0.25, place + 0.25], color=look.colour, linewidth=2)
        ax.plot(row["worst_decile"], place, "x", color=look.colour, markersize=4)
    ax.plot([], [], "x", color=style.GREY, markersize=4, label="(a) mean of the worst tenth")
    ax.set_yticks(range(len(methods)), [style.look(name).title for name in methods])
    ax.set_ylim(len(methods) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("accuracy of its personal model (%)")
    style.as_percent(ax.xaxis)
    style.letter(ax, "a", "accuracy per client")
