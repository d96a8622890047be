"""List what there is: methods, data sets, partitions, models, schedules, fleets."""

from importlib import resources
from typing import Any

import click

from pflbench.fields import pick
from pflbench.plan import SCHEDULES


@click.command("list")
@click.argument("kind", type=click.Choice(["methods", "datasets", "partitions", "models", "schedules", "fleets"]))
@click.argument("name", required=False)
def list_things(kind: str, name: str | None) -> None:
    """Show what there is, with fields, defaults, meaning and source; NAME shows one in full."""
    from pflbench import tables

    things = catalogue(kind)
    if name is not None:
        pick(name, things, kind[:-1])
        tables.describe_one(name, things[name], page(name) if kind == "methods" else None)
        return
    tables.describe_all(kind, things)


def page(method: str) -> str | None:
    """The page of a method of this package; None for a plug-in, which has its module's docstring."""
    from pflbench import registry

    file = resources.files("pflbench") / "docs" / "methods" / f"{method}.md"
    return file.read_text(encoding="utf-8") if registry.digest(method) is None and file.is_file() else None


def catalogue(kind: str) -> dict[str, Any]:
    """name -> what documents it: a class, a function, a text (fleets), or a text and a function with the fields (data)."""
    if kind == "methods":
        from pflbench import registry

        return {name: registry.method_class(name) for name in registry.names()}
    if kind == "partitions":
        from pflbench.partitions import ALL

        return dict(ALL)
    if kind == "models":
        from pflbench.models import MODELS

        return dict(MODELS)
    if kind == "schedules":
        return dict(SCHEDULES)
    if kind == "fleets":
        from pflbench.replay import fleet_text
        from pflbench.timeline import fleet_names

        return {name: fleet_text(name) for name in fleet_names()}
    from pflbench import data

    return {name: (data.describe(name), data.target(name)) for name in data.names()}
