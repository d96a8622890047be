"""How the samples are split over the clients in every setting."""

import numpy as np
import pandas as pd

from pflbench.data.splits import card_of
from pflbench.report import style

SHADES = ["#f4f6f8", "#c3d8ea", "#6ba3d0", "#20609f", "#08264d"]


def table(study):
    frames = []
    for setting, title in study.settings.items():
        run = study.collect(label="local_only", setting=setting)[0]
        card = card_of(run.extra("split"))
        counts = np.asarray(card["class_counts"])
        order = np.lexsort((-counts.max(1), counts.argmax(1)))
        client, label = (each.ravel() for each in np.indices(counts.shape))
        columns = {"place": client, "client": order[client], "class": label, "samples": counts[order].ravel()}
        head = {"setting": setting, "title": title, "label_distance": card["label_distance"], "runs": run.address}
        frames.append(pd.DataFrame({**head, **columns}))
    return pd.concat(frames, ignore_index=True)


def plot(frame):
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    settings = style.ordered(frame, "setting")
    figure, axes = style.new(style.PAGE, 2.6, 2, len(settings), height_ratios=(0.35, 1), sharex="col", sharey="row")
    colours = LinearSegmentedColormap.from_list("counts", SHADES)
    scale = PowerNorm(0.5, 0, frame["samples"].max())
    for column, setting in enumerate(settings):
        own = frame[frame["setting"] == setting]
        counts = own.pivot(index="class", columns="place", values="samples").to_numpy()
        top, ax = axes[0, column], axes[1, column]
        width = 0.6 if counts.shape[1] <= 30 else 0
        mesh = ax.pcolormesh(counts, cmap=colours, norm=scale, edgecolors="white", linewidth=width)
        top.bar(np.arange(counts.shape[1]) + 0.5, counts.sum(0), width=0.8, color="#6b7b8c")
        top.set_title(f"{own['title'].iloc[0]}\ndistance {own['label_distance'].iloc[0]:.2f}")
        ax.set_xlabel("client")
        ax.set_yticks(np.arange(counts.shape[0]) + 0.5, range(counts.shape[0]))
        ax.set_xticks([])
        ax.set_ylim(counts.shape[0], 0)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        ax.grid(visible=False)
        top.tick_params("x", length=0)
    axes[0, 0].set_ylabel("samples")
    axes[1, 0].set_ylabel("class")
    style.colour_bar(figure, mesh, axes[1, :], "samples", pad=0.01, aspect=18)
    return figure
