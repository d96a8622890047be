"""Options that several commands share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic_core import PydanticUndefined

from pflbench.core.errors import BadInput
from pflbench.core.files import expanded
from pflbench.core.reading import read_yaml
from pflbench.experiment.experiment import Choice, Experiment

Command = TypeVar("Command", bound=Callable[..., Any])


class Threads(click.ParamType):  # type: ignore[type-arg]
    """A number of threads, or ``auto``, which is None: as many as there are cores that this process may use."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        return None if value in (None, "auto") else click.IntRange(1).convert(value, param, ctx)


class Place(click.ParamType):  # type: ignore[type-arg]
    """A path; ``~`` is the user's home."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return expanded(Path(value))


PLACE = Place()


def shown(default: Any) -> str:
    """A default as one would type it."""
    if isinstance(default, Choice):
        fields = ",".join(f"{name}={value}" for name, value in default.fields.items())
        return f"{default.name}:{fields}" if fields else default.name
    return str(default)


def experiment_options(command: Command) -> Command:
    """One option per field of Experiment; what is not given on the command line stays as in the config or the default."""
    for name in reversed(Experiment.model_fields):
        command = option_of(name)(command)
    return command


def option_of(name: str) -> Callable[[Command], Command]:
    """The option of one field of Experiment."""
    info = Experiment.model_fields[name]
    known = info.default not in (PydanticUndefined, None)
    text = f"{info.description}  [default: {shown(info.default)}]" if known else info.description
    return click.option(f"--{name.replace('_', '-')}", name, help=text, metavar="VALUE")


def data_root_option(command: Command) -> Command:
    option = click.option(
        "--data-root",
        type=PLACE,
        envvar="PFLBENCH_DATA",
        help="Folder of the data files.  [env: PFLBENCH_DATA]",
    )
    return option(command)


def results_option(command: Command) -> Command:
    return click.option("--results", type=PLACE, default=Path("results"), show_default=True)(command)


def machine_options(command: Command) -> Command:
    """One option per field of Machine."""
    engines = click.Choice(["auto", "loop", "vmap"])
    places = click.Choice(["auto", "device", "host", "file"])
    for name, kind, default, text in (
        ("device", str, "auto", "auto, cpu, cuda or cuda:N."),
        ("engine", engines, "auto", "How a cohort is computed; numbers agree to rounding."),
        ("threads", Threads(), "auto", "Clients computed at a time on a CPU; auto: one per core; changes no bit."),
        ("chunk", click.IntRange(1), 64, "Most clients in one vmapped call; bounds memory."),
        ("checkpoint-s", click.FloatRange(0), 30.0, "Seconds between checkpoints; 0: after every round."),
        ("place-data", click.Choice(["auto", "device", "host"]), "auto", "Where the images lie; changes no bit."),
        ("place-clients", places, "auto", "Where client states lie; changes no bit."),
    ):
        command = click.option(f"--{name}", type=kind, default=default, show_default=True, help=text)(command)
    command = click.option("--graphs/--no-graphs", default=True, help="Capture CUDA graphs on a GPU.")(command)
    free = "Only kernels that give the same bits again; off is faster on a GPU."
    command = click.option("--deterministic/--no-deterministic", default=True, help=free)(command)
    return data_root_option(results_option(command))


def read_experiment(given: dict[str, Any], config: Path | None, settings: tuple[str, ...]) -> Experiment:
    """The experiment of a config file (YAML), overridden by flags, overridden by ``--set field=value`` of the method."""
    values: dict[str, Any] = {}
    if config is not None:
        values = read_yaml(config, "config")
    values.update({name: value for name, value in given.items() if value is not None})
    experiment = Experiment.of(values)
    fields = dict(experiment.method.fields)
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not (name and sign and value):
            raise BadInput("set", setting, "write --set field=value")
        fields[name] = value
    return experiment.model_copy(update={"method": experiment.method.model_copy(update={"fields": fields})})


@contextmanager
def counting(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error: how much of ``name`` is done, elapsed and remaining time."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    text, left = TextColumn("{task.description}", markup=False), TimeRemainingColumn()
    bar = Progress(text, BarColumn(), MofNCompleteColumn(), TextColumn("ETA"), left, console=Console(stderr=True))
    task = bar.add_task(name)

    def watch(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        bar.start()  # not before the first: bad input ends with one clear line and nothing else

    try:
        yield watch
    finally:
        if bar.live.is_started:  # else it would still print an empty line
            bar.stop()
