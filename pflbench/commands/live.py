"""A real federation of processes on this machine, measured and compared with the clock."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pflbench.commands.options import PLACE, data_root_option, experiment_options, read_experiment
from pflbench.core.reading import read_yaml
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine

if TYPE_CHECKING:
    from pflbench.clock.fleet import Fleet
    from pflbench.clock.timeline import Timeline
    from pflbench.live.federation import Live, Server

SMALL = {"clients": 8, "participation": 1.0, "rounds": 5}  # one process per client
REHEARSAL = 2  # rounds; the first warms libraries up and does not count


@click.command()
@experiment_options
@click.option("--config", type=PLACE, help="YAML file of experiment fields; flags override it.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="A field of the method; may be repeated.")
@click.option(
    "--protocol", type=click.Choice(["both", "compute_and_wait", "wait_free"]), default="both", show_default=True
)
@click.option(
    "--up-mbps", type=click.FloatRange(0, min_open=True), default=20.0, show_default=True, help="Uplink, Mbit/s."
)
@click.option(
    "--down-mbps", type=click.FloatRange(0, min_open=True), default=50.0, show_default=True, help="Downlink, Mbit/s."
)
@click.option("--latency-ms", type=click.FloatRange(0), default=0.0, show_default=True, help="Added to every message.")
@click.option(
    "--batch-ms",
    type=click.FloatRange(0),
    default=20.0,
    show_default=True,
    help="Pace of the emulated devices: a batch lasts at least this long. 0: as fast as this machine.",
)
@click.option(
    "--aggregation-ms", type=click.FloatRange(0), default=0.0, show_default=True, help="Least time at the server."
)
@click.option(
    "--patience",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    help="Longest wait for a client's answer, s.",
)
@data_root_option
@click.option("--out", type=PLACE, help="Folder for a Gantt chart of the measured runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line of standard output.")
def live(
    config: Path | None,
    settings: tuple[str, ...],
    protocol: str,
    patience: float,
    data_root: Path | None,
    out: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Run a real federation: a server and one process per client, talking TCP over shaped loopback links.

    A rehearsal of two rounds of compute-and-wait measures the fleet; from that alone the clock predicts both runs. What
    the rehearsal learns is thrown away. Unless given, 8 clients, all of them in each of 5 rounds. Links and devices are
    emulated by waiting; what is learned is compared with the simulated run.

    \b
    pflbench live --method spectral --up-mbps 2 --down-mbps 5
    """
    import sys

    link = {name: given.pop(name) for name in ("up_mbps", "down_mbps", "latency_ms", "batch_ms", "aggregation_ms")}
    values = {
        **SMALL,
        **(read_yaml(config, "config") if config else {}),
        **{k: v for k, v in given.items() if v is not None},
    }
    experiment = read_experiment(values, None, settings)
    from pflbench.live.federation import Stopped

    def watch(text: str) -> None:
        click.echo(text, err=True)

    try:
        report, runs = compare(experiment, Machine(data_root=data_root), link, protocol, patience, watch)
    except Stopped as stop:
        click.echo(f"pflbench: stopped: {stop}", err=True)
        sys.exit(1)
    if out is not None and len(runs) == 2:
        report["files"] = [str(path) for path in draw(runs, out)]
    if as_json:
        click.echo(json.dumps(report))
        return
    show(report)


def compare(
    experiment: Experiment, machine: Machine, link: dict[str, float], protocol: str, patience: float, watch: Any
) -> tuple[dict[str, Any], dict[Any, "Timeline"]]:
    """The report of a rehearsal and of one run per protocol, and what was measured."""
    from pflbench.clock.timeline import PROTOCOLS, gain
    from pflbench.experiment.provenance import processor
    from pflbench.experiment.resolve import resolve
    from pflbench.live import federation
    from pflbench.live.rehearsal import rehearsed

    asked = PROTOCOLS if protocol == "both" else tuple(p for p in PROTOCOLS if p == protocol)
    fleet = uniform(experiment.clients, **link)
    with federation.serve(experiment, machine, fleet, patience_s=patience, watch=watch) as server:
        watch("rehearsal")
        first = federation.play(server, "compute_and_wait", REHEARSAL)
        found = rehearsed(first.timeline, first.record, fleet)
        runs = {each: federation.play(server, each, experiment.rounds) for each in asked}
        reports = {each: report_of(run, fleet, found) for each, run in runs.items()}
        learned = differences(server, runs, experiment.rounds)
    measured = {each: run.timeline for each, run in runs.items()}
    report = {
        "address": resolve(experiment, machine.data_root).address,
        "method": experiment.method.name,
        "clients": experiment.clients,
        "rounds": experiment.rounds,
        "set": link,
        "hardware": processor(),
        "bytes": {
            "up": max(t.up_bytes for t in measured.values()),
            "down": max(t.down_bytes for t in measured.values()),
        },
        "protocols": reports,
        "gain": gain(measured) if len(measured) == 2 else None,
        "learned": learned,
        "lost": {str(client): why for client, why in server.lost.items()},
    }
    if len(measured) == 2:
        slow, fast = (reports[each]["predicted_s"] for each in PROTOCOLS)
        report["predicted_gain"] = slow / fast
    return report, measured


def uniform(
    clients: int, *, up_mbps: float, down_mbps: float, latency_ms: float, batch_ms: float, aggregation_ms: float
) -> "Fleet":
    """Equal devices and links, as set on the command line."""
    import numpy as np

    from pflbench.clock.fleet import Fleet

    pace, down, up, latency = (
        np.full(clients, value) for value in (batch_ms / 1e3, 1e6 * down_mbps, 1e6 * up_mbps, latency_ms / 1e3)
    )
    return Fleet("set", pace, pace, down, up, latency, aggregation_ms / 1e3, 0.0, 0.0, 0.0, sources={})


def report_of(run: "Live", fleet: "Fleet", found: "Fleet") -> dict[str, Any]:
    """Measured and predicted, in seconds. set: the clock on the numbers of the command line alone."""
    import numpy as np

    from pflbench.clock.timeline import simulate
    from pflbench.live.rehearsal import late, phases

    clocks = {
        name: simulate(run.record, each, run.timeline.protocol, rng=np.random.default_rng(0), block="client")
        for name, each in (("predicted", found), ("set", fleet))
    }
    return {
        "measured_s": run.timeline.total_s,
        "predicted_s": clocks["predicted"].total_s,
        "ratio": run.timeline.total_s / clocks["predicted"].total_s,
        "set_s": clocks["set"].total_s if fleet.contribute_s.min() > 0 else None,
        "idle_share": run.timeline.idle_share,
        "late": late(run.timeline, run.record, fleet),
        "phases": {"measured": phases(run.timeline), "predicted": phases(clocks["predicted"])},
    }


def differences(server: "Server", runs: dict[Any, "Live"], rounds: int) -> dict[str, float] | None:
    """Per protocol, the largest difference of any learned number from the simulated run; None where clients were lost."""
    from pflbench.live import federation

    if server.lost:
        return None
    expected = federation.simulated(server.world, rounds)
    return {each: federation.apart(run.federation, expected) for each, run in runs.items()}


def draw(runs: dict[Any, "Timeline"], out: Path) -> list[Path]:
    """The measured runs as a Gantt chart of two rounds."""
    from pflbench.clock.gantt import draw_gantt

    count = min(2, *(len(each.rounds) for each in runs.values()))
    first = min(1, *(len(each.rounds) - count for each in runs.values()))
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"live-gantt.{kind}" for kind in ("pdf", "png")]
    for path in files:
        draw_gantt(runs, first, path, count=count)
    return files


def show(report: dict[str, Any]) -> None:
    """A table per protocol: mean seconds of every phase and of the run, measured and predicted; then what to make of it."""
    from pflbench.clock.replay import SHORT
    from pflbench.commands.tables import _table, plain_console

    protocols, console = report["protocols"], plain_console()
    for name, each in protocols.items():
        table = _table(f"{SHORT[name]}, seconds", "measured", "predicted")
        for phase, seconds in each["phases"]["measured"].items():
            table.add_row(f"{phase} (mean)", f"{seconds:.3f}", f"{each['phases']['predicted'][phase]:.3f}")
        table.add_row("whole run", f"{each['measured_s']:.3f}", f"{each['predicted_s']:.3f}", style="bold")
        console.print(table)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False)

    for name, each in protocols.items():
        at_once = f", {each['set_s']:.2f} s from the numbers set alone" if each["set_s"] is not None else ""
        say(
            f"{SHORT[name]}: measured / predicted = {each['ratio']:.3f}{at_once}; "
            f"{100 * each['late']:.0f} % of the stages were slower than the emulated device"
        )
    if report["gain"] is not None:
        say(f"gain of wait-free: {report['gain']:.2f} measured, {report['predicted_gain']:.2f} predicted")
    for client, why in report["lost"].items():
        say(f"client {client} was lost: {why}")
    for name, gap in (report["learned"] or {}).items():
        same = "bit for bit what the simulated run learns" if gap == 0 else f"within {gap:.1e} of the simulated run"
        say(f"{SHORT[name]}: learned {same}")
    say(f"predicted from a rehearsal of {REHEARSAL} rounds of compute-and-wait; {report['hardware']}")
    for path in report.get("files", []):
        say(f"wrote {path}")
