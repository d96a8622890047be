"""List what there is: methods, data sets, partitions, models, schedules."""

from typing import Any

import click

from pflbench.fields import pick
from pflbench.plan import SCHEDULES


@click.command("list")
@click.argument("kind", type=click.Choice(["methods", "datasets", "partitions", "models", "schedules"]))
@click.argument("name", required=False)
def list_things(kind: str, name: str | None) -> None:
    """Show what there is, with fields, defaults, meaning and source; NAME shows one in full."""
    from pflbench import tables

    things = catalogue(kind)
    if name is not None:
        pick(name, things, kind[:-1])
        tables.describe_one(name, things[name])
        return
    tables.describe_all(kind, things)


def catalogue(kind: str) -> dict[str, Any]:
    """name -> what documents it: a class, a function, or (data sets) a text."""
    if kind == "methods":
        from pflbench import registry

        return {name: registry.method_class(name) for name in registry.names()}
    if kind == "partitions":
        from pflbench.partitions import SCHEMES

        return dict(SCHEMES)
    if kind == "models":
        from pflbench.models import MODELS

        return dict(MODELS)
    if kind == "schedules":
        return dict(SCHEDULES)
    from pflbench import data

    return {name: data.describe(name) for name in data.names()}
