"""The command line. Nothing imports this module; torch is imported only when something is run."""

import sys
from errno import EPIPE
from io import TextIOWrapper
from typing import Any

import click

import pflbench
from pflbench.commands import catalogue, check, clock, data, experiments, live, provenance, study
from pflbench.core.errors import BadInput, printable


class Commands(click.Group):
    """A group whose commands end with one clear line and exit code 2 on bad input."""

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal that cannot show a sign shows another
        try:
            return super().invoke(ctx)
        except BadInput as error:
            click.echo(f"pflbench: {error}", err=True)
            sys.exit(2)
        except OSError as error:
            if error.errno == EPIPE:  # whoever read our output has gone: click knows what to do
                raise
            told = printable(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
            click.echo(f"pflbench: {told}", err=True)
            sys.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(pflbench.__version__, prog_name="pflbench")
def main() -> None:
    """A reproducibility benchmark suite for personalised federated learning."""


for command in (
    experiments.run,
    experiments.show,
    catalogue.list_things,
    check.check,
    data.partition,
    data.prepare,
    study.plan,
    study.grid,
    study.figure,
    study.claims,
    study.report,
    provenance.trace,
    provenance.verify,
    clock.timeline,
    clock.calibrate,
    live.live,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
