"""Run the laws over a method."""

import sys

import click


@click.command()
@click.argument("method")
def check(method: str) -> None:
    """Run every law over METHOD, a name or ./file.py: pass, fail or not applicable. Exit code 1 if one fails."""
    import torch

    from pflbench.commands import tables
    from pflbench.laws import laws

    torch.set_num_threads(1)
    verdicts = laws.check(method)
    tables.law_table(method, verdicts)
    if any(row.holds is False for row in verdicts):
        sys.exit(1)
