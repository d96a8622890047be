"""Tables on the terminal, with rich."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from pflbench.core import measures
from pflbench.core.fields import describe
from pflbench.core.measures import Record
from pflbench.data.samples import Samples
from pflbench.data.schemes import class_counts, label_distance
from pflbench.experiment.code import changed
from pflbench.experiment.record import unsealed
from pflbench.report import stats


def plain_console() -> Console:
    """A console that takes no text for markup: what is printed is what users and strangers wrote."""
    return Console(markup=False, emoji=False, highlight=False)


def run_table(record: Record, path: Path, cached: bool) -> None:
    """One row per model: last evaluation, mean of the last ten, and how the clients fare."""
    table = _table("model", "tested on", "last", f"mean of last {measures.LAST}", "macro", "worst decile")
    tested = np.asarray(record["clients"]["test"])
    local = {name: (measures.local_curve(record, name), record["curve"][name]) for name in ("generic", "personal")}
    rows = (
        ("generic (GM)", "official test set", measures.generic_curve(record), None),
        ("generic (GM)", "clients' tests", *local["generic"]),
        ("personalised (PM)", "clients' tests", *local["personal"]),
    )
    for model, where, curve, counts in rows:
        summary = measures.summary(curve)
        if summary is None:
            continue
        clients = (
            ["", ""]
            if counts is None
            else [_percent(float(f(np.asarray(counts[-1]), tested))) for f in (stats.macro, stats.worst_decile)]
        )
        table.add_row(model, where, _percent(summary["last"]), _percent(summary["last10"]), *clients)
    console = plain_console()
    console.print(table)
    method, seconds = record["experiment"]["method"]["name"], record["provenance"]["seconds"]
    done = "was there already (cache hit)" if cached else f"took {seconds:.1f} s"
    console.print(
        f"{method} {record['address']}: {record['rounds']} rounds, {done}; {path}", soft_wrap=True, highlight=False
    )
    if unsealed(record):
        console.print(
            "unsealed: made before results carried a checksum; `pflbench verify` runs it again", soft_wrap=True
        )
    if record["provenance"].get("code") is None:
        console.print("made before results recorded the code that made them", soft_wrap=True)
    elif other := changed(record):
        console.print(f"made by other code, since changed: {', '.join(other)}; run it again", soft_wrap=True)
    lost = measures.diverged(record)
    if lost is not None:
        known = [f"{name} {_percent(lost[key])}" for name, key in (("GM", "generic"), ("PM", "personal")) if lost[key]]
        before = f"; last finite after round {lost['finite_round']}: {', '.join(known)}" if lost["finite_round"] else ""
        text = f"diverged: numbers are no longer finite at the evaluation of round {lost['round']}{before}"
        console.print(text, soft_wrap=True)


def record_details(record: Record) -> None:
    """The experiment and the provenance, field by field."""
    for title in ("experiment", "provenance"):
        table = _table(title, "value")
        for name, value in record[title].items():
            table.add_row(name, _plain(value))
        plain_console().print(table)


def describe_all(noun: str, things: Sequence[tuple[str, str, Any]]) -> None:
    """One row per (name, documentation, what has the fields): its fields with defaults, its first line."""
    table = _table(noun, "fields = defaults", "what it is")
    for name, text, target in things:
        fields = [f"{row.name}={_default(row.default)}" for row in describe(target)]
        table.add_row(name, "\n".join(fields), next(iter(text.strip().splitlines()), ""))
    plain_console().print(table)


def describe_one(name: str, text: str, target: Any, page: str | None) -> None:
    """Documentation of one thing, its ``page`` in markdown if it has one, and a row per field: type, default, source."""
    console = plain_console()
    if page is not None:
        console.print(Markdown(page))
    else:
        console.print(f"{name}\n", style="bold")
        console.print(_flowing(text), highlight=False)
    rows = describe(target)
    if rows:
        table = _table("field", "type", "default", "allowed", "meaning", "source of the default")
        for row in rows:
            table.add_row(row.name, row.type, _default(row.default), row.allowed, row.meaning, row.source)
        console.print(table)


def partition_table(
    samples: Samples, train: Sequence[NDArray[np.int64]], test: Sequence[NDArray[np.int64]], name: str
) -> None:
    """One row per client and a line that sums up."""
    counts = class_counts(samples.train_y.numpy(), train, samples.classes)
    table = _table("client", "train", "test", "classes", "samples per class")
    for client, row in enumerate(counts):
        table.add_row(
            str(client),
            str(len(train[client])),
            str(len(test[client])),
            str((row > 0).sum()),
            " ".join(f"{n:3d}" for n in row),
        )
    console = plain_console()
    console.print(table)
    sizes = counts.sum(1)
    distance = label_distance(samples.train_y.numpy(), train)
    console.print(
        f"{samples.name}, {name}: {len(train)} clients, sizes {sizes.min()} to {sizes.max()} (median {np.median(sizes):g}), "
        f"label distance {distance:.3f} (mean total variation to the whole set, 0 to 1)",
        soft_wrap=True,
        highlight=False,
    )


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _default(value: Any) -> str:
    return "required" if value is inspect.Parameter.empty else str(value)


def _plain(value: Any) -> str:
    if isinstance(value, dict) and "name" in value:
        fields = ", ".join(f"{name}={item}" for name, item in value["fields"].items())
        return f"{value['name']} ({fields})" if fields else str(value["name"])
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return str(value)


def _flowing(text: str) -> str:
    """Paragraphs on one line each, for the console to break; what is indented or listed stays as it is."""
    return re.sub(r"(?<=\S)\n(?=[^\s*-])", " ", text)


def law_table(method: str, verdicts: Sequence[tuple[str, bool | None, str]]) -> None:
    """One row per law, and a line that counts."""
    words = {True: Text("pass", "green"), False: Text("FAIL", "red"), None: Text("not applicable")}
    table = _table("law", Path(method).stem, "")
    for law, holds, detail in verdicts:
        table.add_row(law, words[holds], detail)
    console = plain_console()
    console.print(table)
    counts = {word: sum(row[1] is word for row in verdicts) for word in words}
    console.print(f"{counts[True]} pass, {counts[False]} fail, {counts[None]} not applicable")
