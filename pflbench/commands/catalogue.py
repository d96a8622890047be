"""List what there is: methods, data sets, partitions, models, schedules, fleets."""

from pathlib import Path
from typing import Any

import click

from pflbench.core.errors import BadInput

KINDS = {"datasets": "dataset", "fleets": "cut"}  # plural -> field of an experiment, where it is not the singular


@click.command("list")
@click.argument("kind", type=click.Choice(["methods", "datasets", "partitions", "models", "schedules", "fleets"]))
@click.argument("name", required=False)
def list_things(kind: str, name: str | None) -> None:
    """Show what there is, with fields, defaults, meaning and source; NAME shows one in full."""
    from pflbench.commands import tables

    known = registry_of(kind)
    if name is not None:
        target = known.get(name)
        tables.describe_one(name, known.text(name), target, page(kind, name))
        return
    rows = []
    for each in known.names():
        try:
            rows.append((each, known.text(each), known.get(each)))
        except BadInput as error:  # a broken plug-in takes nothing else down
            click.echo(f"pflbench: {error}", err=True)
    tables.describe_all(kind[:-1], rows)


def registry_of(kind: str) -> Any:
    """The registry of a plural noun."""
    from pflbench.experiment import resolve

    return resolve.KINDS[KINDS.get(kind, kind[:-1])]


def page(kind: str, name: str) -> str | None:
    """The page that lies beside a method of this package; None for what has only a docstring."""
    import pflbench.baselines

    file = Path(pflbench.baselines.__file__).with_name(f"{name}.md")
    return file.read_text(encoding="utf-8") if kind == "methods" and file.is_file() else None
