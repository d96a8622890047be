"""Prepare data sets; show, draw, export and import partitions."""

from pathlib import Path
from typing import Any

import click

from pflbench.commands.options import PLACE, Command, counting, data_root_option, option_of, read_experiment, shown
from pflbench.core.errors import BadInput, printable


@click.command()
@click.argument("name", required=False)
@click.option("--list", "listing", is_flag=True, help="Show what is prepared, its size and checksum; reads every byte.")
@click.option("--force", is_flag=True, help="Make it again, whatever is there.")
@data_root_option
def prepare(name: str | None, listing: bool, force: bool, data_root: Path | None) -> None:
    """Fetch, verify and resize data set NAME once; runs are offline afterwards. NAME may have fields.

    \b
    pflbench prepare cifar10 --data-root DIR
    pflbench prepare hf:flwrlabs/femnist,size=28,colour=grey --data-root DIR
    """
    from pflbench.data import datasets
    from pflbench.data.datasets import DATASETS

    if data_root is None:
        raise BadInput("data_root", "missing", "give --data-root DIR or set PFLBENCH_DATA")
    if listing:
        rows = datasets.listing(data_root)
        if not rows:
            click.echo(f"nothing is prepared in {data_root}")
        for row in rows:
            state = f"{row.images[0]} + {row.images[1]} images" if row.whole and row.images else "DAMAGED"
            click.echo(f"{row.label}: {state}, {row.bytes / 2**20:.1f} MiB, SHA-256 {row.checksum[:16]}, {row.path}")
        return
    if name is None:
        raise BadInput("name", "missing", f"give one of {', '.join(DATASETS.names())}, or --list")
    chosen, given = DATASETS.parse(name)
    with counting(name) as watch:
        why = datasets.prepare(chosen, data_root, given, watch, force)
    if why:
        click.echo(f"prepared again: {why}", err=True)
    samples = datasets.load(chosen, data_root, given)
    click.echo(
        f"{samples.name}: {len(samples.train_y)} training and {len(samples.test_y)} test images, verified, in {data_root}"
    )
    for line in datasets.told(chosen, data_root, given, samples):
        click.echo(printable(line))


@click.group()
def partition() -> None:
    """Show, draw, export or import a partition of a data set over clients."""


def partition_options(command: Command) -> Command:
    for name in ("validation", "partition_seed", "seed", "clients", "partition", "dataset"):
        command = option_of(name)(command)
    return data_root_option(command)


def make_split(data_root: Path | None, given: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The resolved experiment, samples and (train, test, validation) of the given options."""
    from pflbench.experiment.build import split
    from pflbench.experiment.resolve import resolve

    resolved = resolve(read_experiment({**given, "method": "fedavg"}, None, ()), data_root)
    samples = resolved.chosen["dataset"].make(data_root)
    return resolved.experiment, samples, split(resolved, samples)


@partition.command("show")
@partition_options
def partition_show(data_root: Path | None, **given: Any) -> None:
    """A table: samples, test samples and classes of every client, and the label distance."""
    from pflbench.commands import tables

    experiment, samples, (train, test, _) = make_split(data_root, given)
    tables.partition_table(samples, train, test, shown(experiment.partition))


@partition.command("plot")
@partition_options
@click.argument("path", type=PLACE)
def partition_plot(path: Path, data_root: Path | None, **given: Any) -> None:
    """A figure of client x class counts; PATH ends in .png, .pdf or .svg."""
    from pflbench.data.schemes import class_counts
    from pflbench.data.splits import plot_counts

    experiment, samples, (train, _, _) = make_split(data_root, given)
    counts = class_counts(samples.train_y.numpy(), train, samples.classes)
    plot_counts(counts, path, f"{samples.name}, {shown(experiment.partition)}")
    click.echo(f"drew {path}")


@partition.command("export")
@partition_options
@click.argument("path", type=PLACE)
def partition_export(path: Path, data_root: Path | None, **given: Any) -> None:
    """Write the indices with a checksum and a card to PATH (.npz)."""
    from pflbench.data.splits import export_split
    from pflbench.data.splits import make_split as with_card

    if path.suffix != ".npz":
        raise BadInput("path", path, "must end in .npz")
    experiment, samples, (train, test, _) = make_split(data_root, given)
    chosen = experiment.partition
    split = with_card(
        train,
        test,
        samples.train_y.numpy(),
        samples.test_y.numpy(),
        dataset=samples.name,
        scheme=chosen.name,
        fields=chosen.fields,
        seed=experiment.partition_seed or 0,
    )
    export_split(path, split)
    click.echo(f"wrote {path}: checksum {split.card['checksum']}")


@partition.command("import")
@click.argument("path", type=PLACE)
@data_root_option
def partition_import(path: Path, data_root: Path | None) -> None:
    """Check an exported PATH against its data set and show its card; use it with --partition file:path=PATH."""
    from pflbench.commands import tables
    from pflbench.data import datasets
    from pflbench.data.datasets import DATASETS
    from pflbench.data.splits import card_of, import_split

    name, fields = DATASETS.parse(card_of(path)["dataset"])
    samples = datasets.load(name, data_root, fields)
    split = import_split(path, len(samples.train_y), len(samples.test_y), samples.name)
    tables.partition_table(samples, split.train, split.test, shown_card(split.card))
    click.echo(
        f"intact: checksum {split.card['checksum']}; run it with --partition file:path={path} --clients {len(split.train)}"
    )


def shown_card(card: dict[str, Any]) -> str:
    fields = ", ".join(f"{name}={value}" for name, value in card["fields"].items())
    return f"{card['scheme']} ({fields}), seed {card['seed']}"
