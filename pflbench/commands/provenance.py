"""Behind a number: which runs it comes from, and whether they come out the same again."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from pflbench.commands.options import machine_options, results_option
from pflbench.commands.study import scale_option
from pflbench.core.errors import BadInput
from pflbench.experiment.machine import Machine


@click.command()
@click.argument("figure")
@scale_option
@click.option("--cell", metavar="METHOD,SETTING", help="A method or row of the figure, and a setting or data set.")
@results_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def trace(figure: str, scale: str, cell: str | None, results: Path, as_json: bool) -> None:
    """The runs behind FIGURE or one cell of it: addresses, experiments, commits.

    \b
    pflbench trace accuracy --cell spectral,digits
    """
    from pflbench.core import measures
    from pflbench.core.fields import pick
    from pflbench.report import finished
    from pflbench.report.figures import accuracy

    runs = list(finished.load(figure, scale, results).runs)
    if cell is not None:
        row, _, setting = cell.partition(",")
        pick(row, {name for run in runs for name in (run.label, run.fields["method"])}, "cell")
        runs = [run for run in runs if row in (run.label, run.fields["method"])]
        if setting:
            pick(setting, {name for run in runs for name in (run.setting, run.fields["dataset"])}, "cell")
            runs = [run for run in runs if setting in (run.setting, run.fields["dataset"])]
    rows = [
        {
            "address": run.address,
            "label": run.label,
            "setting": run.setting,
            "seed": run.seed,
            "GM": accuracy(run, "GM"),
            "PM": accuracy(run, "PM"),
            "diverged": measures.diverged(run.record),
            "path": str(run.path),
            "commit": run.record["provenance"]["commit"],
            "experiment": run.record["experiment"],
        }
        for run in runs
    ]
    if as_json:
        click.echo(json.dumps({"figure": figure, "scale": scale, "runs": rows}))
        return
    from rich import box
    from rich.table import Table

    from pflbench.commands.tables import plain_console

    given = [each["experiment"]["method"]["fields"] for each in rows]
    shared = {name: value for name, value in given[0].items() if all(one.get(name) == value for one in given)}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("address", "row", "setting", "seed", "GM", "PM", "commit", "fields that differ"):
        table.add_column(column, no_wrap=column in ("address", "setting"), overflow="fold")
    for each, fields in zip(rows, given, strict=True):
        scores = [f"{100 * score:.1f} %" if score is not None else "" for score in (each["GM"], each["PM"])]
        own = ", ".join(f"{name}={value}" for name, value in fields.items() if name not in shared)
        head = (each["address"], each["label"], each["setting"], str(each["seed"]))
        if each["diverged"] is not None:
            scores[0] = f"{scores[0]} diverged".strip()
        table.add_row(*head, *scores, str(each["commit"] or "unknown")[:7], own)
    several = len({each["experiment"]["method"]["name"] for each in rows}) > 1
    if several or len(shared) == len(given[0]):
        table.columns.pop()
    console = plain_console()
    console.print(table)
    if shared and not several:
        told = ", ".join(f"{name}={value}" for name, value in shared.items())
        console.print(f"method's fields of every run: {told}", highlight=False)
    click.echo(f"{len(rows)} runs; `pflbench show ADDRESS` shows one in full")


@click.command()
@click.argument("address", required=False)
@click.option("--random", "count", type=click.IntRange(1), help="So many results, drawn by --seed.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of --random.")
@machine_options
def verify(address: str | None, count: int | None, seed: int, **given: Any) -> None:
    """Run finished results again, elsewhere, and say whether they are identical; exit code 1 if one is not."""
    from pflbench.core.streams import stream
    from pflbench.experiment import store
    from pflbench.study.runs import verify as again

    results = given["results"]
    if (address is None) == (count is None):
        raise BadInput("address", address, "give either ADDRESS or --random N")
    paths = sorted(results.glob("**/[0-9a-f]*.json")) if address is None else [store.find(results, address)]
    if not paths:
        raise BadInput("results", results, "holds no result")
    if count is not None:
        paths = [paths[n] for n in stream(seed, "verify").permutation(len(paths))[:count]]
    wrong = 0
    for path in paths:
        record = store.load(path)
        name = f"{record['experiment']['method']['name']} {record['address']}"
        try:
            differences = again(record, Machine(**given))
        except BadInput as error:
            click.echo(f"{name}: cannot be run again: {error}")
            wrong += 1
            continue
        click.echo(f"{name}: identical" if not differences else f"{name}: {len(differences)} numbers differ")
        for line in differences[:5]:
            click.echo(f"  {line}")
        wrong += bool(differences)
    if wrong:
        sys.exit(1)
