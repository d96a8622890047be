"""Run one experiment; show one result."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from pflbench.commands.options import PLACE, experiment_options, machine_options, read_experiment, results_option
from pflbench.experiment.machine import Machine


@click.command()
@experiment_options
@click.option("--config", type=PLACE, help="YAML file of experiment fields; flags override it.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="A field of the method; may be repeated.")
@machine_options
@click.option("--keep-models", is_flag=True, help="Also keep the final states, as safetensors beside the result.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line of standard output.")
def run(config: Path | None, settings: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Run one experiment, or say that its result is there already.

    \b
    pflbench run --method spectral
    pflbench run --method spectral --set tau=0.4 --partition dirichlet:alpha=0.3 --seed 1
    """
    machine = Machine(**{name: given.pop(name) for name in tuple(given) if name in Machine.__dataclass_fields__})
    experiment = read_experiment(given, config, settings)
    from pflbench.core import measures
    from pflbench.experiment.run import Interrupted, Progress
    from pflbench.experiment.run import run as run_experiment

    with progress_bar(experiment.method.name) as bar:

        def watch(now: Progress) -> None:
            bar(now.round, now.rounds, now.generic, now.personal)

        try:
            outcome = run_experiment(experiment, machine, watch)
        except (Interrupted, KeyboardInterrupt) as stop:
            click.echo(
                f"pflbench: {str(stop) or 'stopped; the same command goes on from the last checkpoint'}", err=True
            )
            sys.exit(130)
    record = outcome.record
    generic, personal = measures.generic_curve(record), measures.local_curve(record, "personal")
    summary = {
        "address": record["address"],
        "path": str(outcome.path),
        "rounds": record["rounds"],
        "generic": measures.summary(generic),
        "personal": measures.summary(personal),
        "seconds": record["provenance"]["seconds"],
        "cached": outcome.cached,
        "diverged": measures.diverged(record),
    }
    if as_json:
        click.echo(json.dumps(summary))
    else:
        from pflbench.commands.tables import run_table

        run_table(record, outcome.path, outcome.cached)


@click.command()
@click.argument("address")
@results_option
@click.option("--json", "as_json", is_flag=True, help="Print the whole record.")
def show(address: str, results: Path, as_json: bool) -> None:
    """Show one result: accuracies, experiment and provenance. ADDRESS may be shortened."""
    from pflbench.commands import tables
    from pflbench.experiment import store

    path = store.find(results, address)
    record = store.load(path)
    if as_json:
        click.echo(json.dumps(record))
        return
    tables.run_table(record, path, cached=True)
    tables.record_details(record)


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[int, int, float | None, float | None], None]]:
    """A bar on standard error: rounds, GM and PM accuracy, elapsed and remaining time."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[accuracy]}"),
        TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(),
    )  # fmt: skip
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(name, accuracy="")

    def update(round: int, rounds: int, generic: float | None, personal: float | None) -> None:
        pairs = (("GM", generic), ("PM", personal))
        text = "  ".join(f"{label} {value:.3f}" for label, value in pairs if value is not None)
        bar.update(task, total=rounds, completed=round, accuracy=text)
        bar.start()  # not before the first round: bad input ends with one clear line and nothing else

    try:
        yield update
    finally:
        if bar.live.is_started:  # else it would still print an empty line
            bar.stop()
