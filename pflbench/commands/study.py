"""The study: what it needs, what it costs, its runs, figures, claims and report."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pflbench.commands.options import PLACE, Command, counting, machine_options, results_option
from pflbench.core.errors import BadInput
from pflbench.experiment.machine import Machine
from pflbench.study.grid import FIGURES


def scale_option(command: Command) -> Command:
    return click.option("--scale", default="desk", show_default=True, help="desk, fashion or paper; see scales.yaml.")(
        command
    )


def narrow_options(command: Command) -> Command:
    """Which part of the study."""
    command = click.option("--settings", metavar="NAME,...", help="Only these settings of the scale.")(command)
    command = click.option("--methods", metavar="NAME,...", help="Only these methods.")(command)
    command = click.option("--seeds", type=click.IntRange(1), help="How many seeds.  [default: the scale's]")(command)
    return scale_option(command)


def plan_of(figures: Sequence[str], scale: str, given: dict[str, Any]) -> Any:
    """The plan of some options, which are taken out of ``given``; the rest is the machine."""
    from pflbench.study.grid import Narrow
    from pflbench.study.workload import Workload

    methods, settings = (given.pop(name) for name in ("methods", "settings"))
    narrow = Narrow(given.pop("seeds"), methods and methods.split(","), settings and settings.split(","))
    return Workload.of(scale, figures or None, narrow, data=given["data_root"])


@click.command()
@click.argument("figures", nargs=-1)
@narrow_options
@click.option("--part", metavar="K/N", help="Only every N-th run, from the K-th (1 is the first).")
@machine_options
def grid(figures: tuple[str, ...], scale: str, part: str | None, **given: Any) -> None:
    """Run every experiment that FIGURES need (default: all), in this process; what is there already is not run again."""
    from pflbench.experiment.run import Interrupted
    from pflbench.study.runs import work

    plan = plan_of(figures, scale, given)
    plan.write()
    wanted = plan.needed
    if part is not None:
        number, sign, count = part.partition("/")
        if not (sign and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
            raise BadInput("part", part, "write K/N with K from 1 to N")
        wanted = wanted[int(number) - 1 :: int(count)]

    missing, began, started = sum(not needed.done(given["results"]) for needed in wanted), time.monotonic(), 0

    def watch(number: int, needed: Any, cached: bool) -> None:
        nonlocal started
        if cached:
            return
        left = (time.monotonic() - began) / started * (missing - started) if started else None
        started += 1
        eta = "" if left is None else f", ETA {_duration(left)}"
        click.echo(f"{started}/{missing}{eta}: {_told(needed)}", err=True)

    try:
        failures = work(wanted, Machine(**given), watch)
    except (Interrupted, KeyboardInterrupt) as stop:
        click.echo(f"pflbench: {str(stop) or 'stopped; the same command goes on from the last checkpoint'}", err=True)
        sys.exit(130)
    for failure in failures:
        click.echo(f"pflbench: failed: {_told(failure.needed)}: {failure.reason}", err=True)
    if failures:
        sys.exit(1)
    click.echo(f"{len(wanted)} results are there")


def _told(needed: Any) -> str:
    experiment = needed.experiment
    return f"{experiment.method.name} {needed.address} seed {experiment.seed} (for {', '.join(needed.figures)})"


@click.command()
@click.argument("figures", nargs=-1)
@scale_option
@results_option
def figure(figures: tuple[str, ...], scale: str, results: Path) -> None:
    """Draw FIGURES (default: all) from finished runs. Needs no torch."""
    from pflbench.report.figures import produce
    from pflbench.report.finished import load
    from pflbench.study import grid as grids

    for name in figures or grids.names():
        lost = [run.address for run in load(name, scale, results).runs if run.record["diverged"] is not None]
        if lost:
            click.echo(f"pflbench: figure {name}: {len(lost)} of its runs diverged: {', '.join(lost)}", err=True)
        for file in produce(name, scale, results):
            click.echo(file)


@click.command()
@click.argument("figures", nargs=-1)
@narrow_options
@click.option("--cores", type=click.IntRange(1), help="Processes at a time.  [default: the cores of this machine]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@machine_options
def plan(figures: tuple[str, ...], scale: str, cores: int | None, as_json: bool, **given: Any) -> None:
    """What a study will cost on this machine: runs, cache hits, time, memory, disk; a few rounds of each kind are timed."""
    import os

    from pflbench.study.forecast import forecast

    wanted, cores = plan_of(figures, scale, given), cores or os.cpu_count() or 1
    with counting("timing a few rounds") as watch:
        bill = forecast(wanted, Machine(**given), watch=watch)
    left = [n for n in range(wanted.parts) if not all(r.done(given["results"]) for r in wanted.part(n))]
    total = bill.wall_s(len(left), len(wanted.manifests) + 1, cores)
    if as_json:
        rows = {name: vars(each) for name, each in bill.figures.items()}
        held = {kind: {part: each._asdict() for part, each in kept.items()} for kind, kept in bill.memory.items()}
        click.echo(json.dumps({"scale": scale, "cores": cores, "wall_s": total, "figures": rows, "memory": held}))
        return
    from rich import box
    from rich.table import Table

    from pflbench.commands.tables import plain_console

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("figure", "runs", "there already", "computing left", "disk"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, each in bill.figures.items():
        name = "all, each run once" if name == "all" else name
        table.add_row(name, str(each.runs), str(each.cached), _duration(each.seconds), f"{each.disk / 1e6:.1f} MB")
    console = plain_console()
    console.print(table)
    if bill.memory:
        parts = list(dict.fromkeys(part for kept in bill.memory.values() for part in kept))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("memory of a run (the method with the most)")
        for part in parts:
            table.add_column(part, justify="right")
        for kind, kept in bill.memory.items():
            table.add_row(kind, *(str(kept.get(part, "")) for part in parts))
        console.print(table)
    console.print(
        f"scale {scale}: about {_duration(total)} with {cores} at a time: {len(left)} processes that start in "
        f"{bill.start_s:.1f} s each, {len(wanted.manifests)} figures and a report of {bill.draw_s:.1f} s each; "
        f"{bill.process / 2**30:.1f} GiB per process",
        soft_wrap=True,
        highlight=False,
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@click.command()
@click.argument("figures", nargs=-1)
@scale_option
@results_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def claims(figures: tuple[str, ...], scale: str, results: Path, as_json: bool) -> None:
    """The verdict on every claim of the paper, from finished runs (of FIGURES only, if some are named)."""
    from pflbench.report import claims as judging
    from pflbench.report.figures import write_csv

    found = judging.judge_all(scale, results, figures or None)
    frame = judging.frame_of(found)
    if len(frame):
        write_csv(frame, FIGURES / "out" / scale / "claims.csv")
    if as_json:
        rows = [{"claim": each.id, "verdict": each.verdict, "seeds": each.seeds, "note": each.note} for each in found]
        click.echo(json.dumps({"scale": scale, "claims": rows}))
        return
    from rich import box
    from rich.table import Table

    from pflbench.commands.tables import plain_console

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("claim", "verdict", "seeds", "what it says, and the contrast that speaks most against it"):
        table.add_column(column, no_wrap=column == "verdict")
    for each in found:
        one, text = each.decisive, each.note
        if one is not None:
            pair = one.a + (f" - {one.b}" if one.b else "")
            inside = f"[{one.interval.low:.4f}, {one.interval.high:.4f}]"
            text = f"{one.setting}, {one.measure}: {pair} = {one.interval.mean:.4f} {inside}"
            text += f"; needs > {each.claim.threshold:g}{'; ' if each.note else ''}{each.note}"
        table.add_row(each.id, each.verdict, str(each.seeds), f"{each.claim.text}\n{text}")
    plain_console().print(table, highlight=False)


@click.command()
@click.argument("figures", nargs=-1)
@scale_option
@results_option
@click.option("--out", type=PLACE, help="[default: paper_figures/out/SCALE/report.html]")
def report(figures: tuple[str, ...], scale: str, results: Path, out: Path | None) -> None:
    """Verdicts, tables, figures and every run behind them in one HTML file that needs no network."""
    from pflbench.report.page import write

    path = out or FIGURES / "out" / scale / "report.html"
    write(path, scale, results, figures or None)
    click.echo(path)
