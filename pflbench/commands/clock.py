"""The clock: what finished results would have taken on a fleet, and a fleet entry measured on this machine."""

import json
from pathlib import Path
from typing import Any

import click

from pflbench.commands.options import PLACE, Command, data_root_option, option_of, read_experiment, results_option
from pflbench.core.errors import BadInput
from pflbench.experiment.machine import Machine


@click.command()
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.option("--fleet", metavar="NAME|FILE", help="A fleet of `pflbench list fleets`, or a YAML file.  [default: lte]")
@click.option(
    "--protocol", type=click.Choice(["both", "compute_and_wait", "wait_free"]), default="both", show_default=True
)
@click.option(
    "--block",
    type=click.Choice(["round", "client"]),
    default="round",
    show_default=True,
    help="Whose personal stage holds up a client's next generic stage: anyone's, or its own only.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the fleet and its chance.")
@results_option
@click.option("--out", type=PLACE, help="Folder for times, curves and a Gantt chart per result.")
@click.option(
    "--round", "first", type=click.IntRange(1), default=2, show_default=True, help="First round of the Gantt chart."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line of standard output.")
def timeline(
    addresses: tuple[str, ...],
    fleet: str | None,
    protocol: str,
    block: Any,
    seed: int,
    results: Path,
    out: Path | None,
    first: int,
    as_json: bool,
) -> None:
    """What finished results would have taken on a fleet: total time, idle share, gain of wait-free, bytes.

    \b
    pflbench timeline 3fa9 --fleet wifi
    pflbench timeline 3fa9 77c0 --fleet own.yaml --out clock
    """
    from pflbench.clock import replay
    from pflbench.clock.timeline import PROTOCOLS
    from pflbench.experiment import store

    asked = PROTOCOLS if protocol == "both" else tuple(p for p in PROTOCOLS if p == protocol)
    records = [store.load(store.find(results, address)) for address in addresses]
    runs = [
        (record, replay.replay(record, fleet or replay.DEFAULT_FLEET, seed=seed, block=block)) for record in records
    ]
    rows = [row for record, both in runs for row in replay.cost_rows(record, both) if row["protocol"] in asked]
    files = draw(runs, rows, asked, out, first) if out is not None else []
    if as_json:
        name = {"fleet": rows[0]["fleet"], "default_fleet": fleet is None, "block": block, "seed": seed}
        click.echo(json.dumps({**name, "rows": rows, "files": [str(path) for path in files]}))
        return
    table(rows, fleet is None)
    for path in files:
        click.echo(f"wrote {path}")


def draw(runs: list[Any], rows: list[Any], asked: tuple[str, ...], out: Path, first: int) -> list[Path]:
    """Times and curves of all results, and a Gantt chart of two rounds of each."""
    from pflbench.clock import replay
    from pflbench.clock.gantt import draw_gantt
    from pflbench.report import clock_figures

    curves = [row for record, both in runs for row in replay.curve_rows(record, both) if row["protocol"] in asked]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput("out", out, f"must be a folder that can be written to ({error.strerror})") from None
    files = clock_figures.draw(clock_figures.plot_times, rows, out / "times")
    files += clock_figures.draw(clock_figures.plot_curves, curves, out / "curves")
    for record, both in runs:
        count = min(2, len(record["cohorts"]))
        for kind in ("pdf", "png"):
            files.append(out / f"gantt-{record['address']}.{kind}")
            draw_gantt(both, min(first, len(record["cohorts"]) - count + 1) - 1, files[-1], count=count)
    return files


def table(rows: list[Any], default: bool) -> None:
    """One row per result and protocol."""
    import pandas as pd

    from pflbench.clock import replay
    from pflbench.commands.tables import _table, plain_console
    from pflbench.report import clock_figures

    shown = _table("method", "protocol", "seconds", "idle", "gain", "down", "up", "in all")
    names = clock_figures.labels(pd.DataFrame(rows))
    for row in rows:
        down, up = row["down_bytes"] / 1e6, row["up_bytes"] / 1e6
        sent = (f"{amount:.3g}" for amount in (down / row["rounds"], up / row["rounds"], down + up))
        faster = f"{row['gain']:.2f}" if row["protocol"] == "wait_free" else ""
        idle, took = f"{100 * row['idle_share']:.0f} %", f"{row['total_s']:,.0f}"
        shown.add_row(names[row["address"]], replay.SHORT[row["protocol"]], took, idle, faster, *sent)
    console = plain_console()
    console.print(shown)
    note = " (the default; --fleet names another)" if default else ""
    console.print(
        f"fleet {rows[0]['fleet']}{note}; down and up: MB a round, of all clients together; in all: of the run",
        soft_wrap=True,
        highlight=False,
    )


def calibrate_options(command: Command) -> Command:
    """The fields of an experiment that a batch's time depends on."""
    for name in ("precision", "epochs", "batch_size", "model", "dataset", "method"):
        command = option_of(name)(command)
    return command


@click.command()
@calibrate_options
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="A field of the method; may be repeated.")
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N.")
@data_root_option
@click.option("--batches", type=click.IntRange(1), default=20, show_default=True, help="Batches in a pass.")
@click.option(
    "--repeats", type=click.IntRange(3), default=9, show_default=True, help="Stages measured, after a warm-up."
)
@click.option(
    "--like", default="homogeneous", show_default=True, metavar="NAME|FILE", help="Fleet to take all else from."
)
@click.option("--out", type=PLACE, help="Write a fleet file, for --fleet FILE.yaml.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line of standard output.")
def calibrate(
    settings: tuple[str, ...],
    device: str,
    data_root: Path | None,
    batches: int,
    repeats: int,
    like: str,
    out: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Measure the seconds per batch of both stages on this machine: one client, one core or GPU.

    \b
    pflbench calibrate --model cnn_small --like lte --out fleets/mine.yaml
    pflbench timeline 3fa9 --fleet fleets/mine.yaml
    """
    import yaml

    from pflbench.clock.fleet import load_fleet
    from pflbench.core.files import publish_bytes

    if out is not None and out.suffix not in (".yaml", ".yml"):
        raise BadInput("out", out, "the name of a fleet file ends in .yaml")
    base = load_fleet(like)
    experiment = read_experiment({**given, "method": given["method"] or "spectral"}, None, settings)
    from pflbench.live import calibration as calibration

    machine = Machine(device=device, data_root=data_root)
    found = calibration.measure(experiment, machine, batches=batches, repeats=repeats)
    fleet = calibration.entry(experiment, machine, found, base, batches=batches, repeats=repeats)
    if out is not None:
        text = yaml.safe_dump(fleet, sort_keys=False, width=110, allow_unicode=True)
        publish_bytes(out, lambda file: file.write(text.encode()))
    if as_json:
        seconds = {stage: vars(each) for stage, each in found.items()}
        click.echo(json.dumps({"seconds_per_batch": seconds, "fleet": fleet, "path": str(out) if out else None}))
        return
    for stage, each in found.items():
        spread = f"{1e3 * each.low:.3g} to {1e3 * each.high:.3g} ms over {repeats} repeats"
        click.echo(f"{stage}: {1e3 * each.median:.3g} ms per batch, {spread}" if each.high else f"{stage}: no work")
    click.echo(fleet["contribute_s"]["source"])
    click.echo(f"wrote {out}" if out else "--out FILE.yaml writes it as a fleet")
