"""Run the laws over a method, or look through a store of results."""

import sys
from pathlib import Path

import click

from pflbench.core.errors import BadInput


@click.command()
@click.argument("what", metavar="METHOD|FOLDER")
def check(what: str) -> None:
    """Run every law over METHOD, a name or ./file.py: pass, fail or not applicable. Exit code 1 if one fails.

    With a FOLDER of results: a line for every file that is no whole result and belongs to none; exit code 1 if any.

    \b
    pflbench check ./mine.py
    pflbench check results/
    """
    from pflbench.baselines import METHODS
    from pflbench.core.files import expanded

    folder = expanded(Path(what))
    if what not in METHODS.names() and _is_folder(folder):
        look_through(folder)
        return
    import torch

    from pflbench.commands import tables
    from pflbench.laws import laws

    torch.set_num_threads(1)
    verdicts = laws.check(what)
    tables.law_table(what, verdicts)
    if any(row.holds is False for row in verdicts):
        sys.exit(1)


def look_through(results: Path) -> None:
    """Prints every fault of a store, and how many results it holds. Exit code 1 if there is a fault."""
    from pflbench.study.audit import audit

    found = audit(results)
    for line in found.faults:
        click.echo(line)
    held, faults = found.sealed + found.unsealed, len(found.faults)
    told = f"{held} result{'s' * (held != 1)} ({found.sealed} sealed, {found.unsealed} unsealed)"
    click.echo(f"{told}, {faults or 'no'} fault{'s' * (faults != 1)}")
    if faults:
        sys.exit(1)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError) as error:
        raise BadInput("method", path, f"no such file or folder: {error}") from None
