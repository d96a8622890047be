"""A Gantt chart of a few rounds: who computes, who sends and who waits, under both protocols.

A row is a client. Its upper lane is its processor, its lower lane its link; hatched is idle, neither is in use.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pflbench.clock.fleet import Floats
from pflbench.clock.timeline import PROTOCOLS, Protocol, Round, Timeline, gain
from pflbench.core.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = 12  # at most, from the slowest client to the fastest
TITLES = {
    "compute_and_wait": "Compute-and-wait: personal stage first, then upload",
    "wait_free": "Wait-free: personal stage while the network works",
}
# Okabe and Ito's colours: told apart by colour-blind readers and, with the lanes, in grey. Stage: label, colour, lane.
STAGES = {
    "download": ("download", "#56B4E9", "link"),
    "generic": ("generic stage", "#0072B2", "processor"),
    "personal": ("personal stage", "#E69F00", "processor"),
    "upload": ("upload", "#009E73", "link"),
}
LANES = {"processor": (-0.40, 0.44), "link": (0.06, 0.34), "row": (-0.40, 0.80)}  # start and height; a row is 1 high
INK, GREY, PALE = "#222222", "#767676", "#B8B8B8"
IDLE: dict[str, Any] = {"facecolor": "#F4F4F4", "edgecolor": PALE, "hatch": "/////", "linewidth": 0, "label": "idle"}
DASHED = (0, (4, 2))
STYLE: dict[Any, Any] = {
    "pdf.fonttype": 42,  # fonts embedded
    "svg.fonttype": "none",
    "font.size": 8,
    "hatch.linewidth": 0.5,
    "axes.linewidth": 0.6,
    "text.color": INK,
}


def draw_gantt(timelines: Mapping[Protocol, Timeline], round: int, path: str | Path, *, count: int = 2) -> None:
    """Both protocols, ``count`` rounds from ``round`` (0 is the first), as a figure at ``path``: .pdf, .png or .svg."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    waiting, free = (timelines[protocol] for protocol in PROTOCOLS)
    last = len(waiting.rounds)
    if round < 0 or count < 1 or round + count > last:
        raise BadInput("round", round, f"rounds {round} to {round + count - 1} must be within 0 to {last - 1}")
    clients = _rows(waiting.rounds[round : round + count])
    numbers = f"rounds {round + 1} to {round + count}" if count > 1 else f"round {round + 1}"
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.1 + 2 * 0.21 * (len(clients) + 1)), layout="constrained")
        axes = figure.subplots(2, 1, sharex=True)
        panels = [_panel(a, timelines[p], round, count, clients) for a, p in zip(axes, PROTOCOLS, strict=True)]
        left, (slow, fast) = min(start for start, _ in panels), (end for _, end in panels)
        axes[0].set_xlim(left, max(slow, fast) + 0.005 * (max(slow, fast) - left))
        axes[1].set_xlabel(f"seconds since the end of round {round}" if round else "seconds since the start of the run")
        if slow > fast:
            _saving(axes[1], fast, slow)
        figure.suptitle(
            f"Fleet {free.fleet}, {numbers} of {last}. Whole run: {_seconds(waiting.total_s)} compute-and-wait, "
            f"{_seconds(free.total_s)} wait-free, gain {gain(timelines):.2f}",
            fontsize=9,
        )
        handles, labels = axes[0].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(
            unique.values(),
            unique.keys(),
            loc="outside lower center",
            ncols=len(unique),
            frameon=False,
            title="upper lane: processor, lower lane: link, hatched: neither in use",
        )
        once = {"CreationDate": None} if Path(path).suffix == ".pdf" else None  # the same bytes every time
        figure.savefig(path, dpi=200, metadata=once)


def _rows(rounds: Sequence[Round]) -> list[int]:
    """The clients to show, slowest first: all, or ROWS of them evenly spread over the ranking."""
    busy: dict[int, list[float]] = {}
    for each in rounds:
        for client, start, end in zip(each.clients.tolist(), each.download[:, 0], each.upload[:, 1], strict=True):
            busy.setdefault(client, []).append(end - start)
    ranked = sorted(busy, key=lambda client: -float(np.mean(busy[client])))
    return [ranked[i] for i in np.linspace(0, len(ranked) - 1, min(ROWS, len(ranked))).astype(int)]


def _panel(axes: "Axes", timeline: Timeline, first: int, count: int, clients: list[int]) -> tuple[float, float]:
    """One protocol. Returns the time shown: when the first round opens, before 0 where its downloads overlap the personal
    stages of the round before, and when the last one is over. 0 is the end of the round before.
    """
    before, shown = timeline.rounds[:first], timeline.rounds[first : first + count]
    origin = before[-1].end if before else 0.0
    ends = np.array([each.end for each in shown]) - origin
    window = (float(before[-1].aggregation[1]) - origin if before else 0.0, float(ends[-1]))
    work = np.array([each.aggregation for each in shown]) - origin
    for row, client in enumerate(clients):
        spans = {stage: _spans(timeline, client, stage) - origin for stage in STAGES}
        for stage, (label, colour, lane) in STAGES.items():
            _bars(axes, spans[stage], row, lane, window, label=label, facecolor=colour, linewidth=0)
        over = np.maximum(_spans(timeline, client, "wait")[:, 1] - origin, spans["personal"][:, 1])
        there = np.stack([spans["download"][:, 0], over], axis=1)
        _bars(axes, _without(there, np.concatenate(list(spans.values()))), row, "row", window, **IDLE)
        for each, opens, closes in zip(shown, [window[0], *work[:-1, 1]], work[:, 1], strict=True):
            if client not in each.clients:
                middle = (max([opens, *over[over < closes]]) + closes) / 2
                clear = {"facecolor": "white", "linewidth": 0, "pad": 1}
                axes.text(middle, row, "absent", color=GREY, ha="center", va="center", fontsize=7, bbox=clear)
    _bars(axes, work, len(clients), "row", window, label="aggregation", facecolor=INK, edgecolor=INK, linewidth=0.8)
    if before:
        axes.axvline(0, color=PALE, linewidth=1.0, linestyle=DASHED)
    for number, at in enumerate(ends, first + 1):
        axes.axvline(at, color=INK, linewidth=1.0, linestyle=DASHED)
        axes.text(at, -0.66, f"end of round {number}: {_seconds(at)}", ha="right")
    axes.set_title(TITLES[timeline.protocol], loc="left", fontsize=8.5, fontweight="bold", pad=14)
    rank = {0: "slowest: ", len(clients) - 1: "fastest: "} if len(clients) > 1 else {}
    names = [f"{rank.get(row, '')}client {client}" for row, client in enumerate(clients)]
    axes.set_yticks(range(len(clients) + 1), [*names, "server"])
    axes.set_ylim(len(clients) + 0.55, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return window


def _saving(axes: "Axes", fast: float, slow: float) -> None:
    """An arrow from the end of wait-free to the end of compute-and-wait, and what it is worth."""
    axes.axvline(slow, color=PALE, linewidth=1.0, linestyle=DASHED)
    tips = {"arrowstyle": "<->", "color": INK, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (fast, 0), (slow, 0), arrowprops=tips)
    text = f"{_seconds(slow - fast)} saved: {slow / fast:.2f} times faster"
    axes.set_title(text, loc="right", fontsize=8.5, pad=14)


def _spans(timeline: Timeline, client: int, stage: str) -> Floats:
    """Start and end of a stage of one client, over the whole run. [n, 2]"""
    return np.concatenate([getattr(each, stage)[each.clients == client] for each in timeline.rounds])


def _without(whole: Floats, parts: Floats) -> Floats:
    """The union of ``whole`` without the union of ``parts``. All [n, 2]."""
    edges = np.unique(np.concatenate([whole.ravel(), parts.ravel()]))
    cells = np.stack([edges[:-1], edges[1:]], axis=1)
    middle = cells.mean(axis=1)[:, None]
    inside, used = ((spans[:, 0] < middle) & (middle < spans[:, 1]) for spans in (whole, parts))
    return np.asarray(cells[inside.any(axis=1) & ~used.any(axis=1)])


def _bars(axes: "Axes", spans: Floats, row: int, lane: str, window: tuple[float, float], **look: Any) -> None:
    """Bars for the part of the spans within ``window``. spans: [n, 2]"""
    start, end = np.clip(spans, *window).T
    offset, height = LANES[lane]
    axes.broken_barh(np.stack([start, end - start], axis=1)[end > start], (row + offset, height), **look)


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"
