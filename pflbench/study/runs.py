"""Many runs in one process, what is derived from them, and whether they come out the same again."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pflbench.core import files, measures, tree
from pflbench.core.errors import BadInput
from pflbench.data import splits
from pflbench.engine import engine
from pflbench.experiment import store
from pflbench.experiment.build import build, pick_device
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.experiment.run import Interrupted, run
from pflbench.study import bands, grid
from pflbench.study.grid import Extra
from pflbench.study.workload import Needed

ROUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # after which bands are measured, and after the last


@dataclass(frozen=True)
class Failure:
    """A run that did not finish."""

    needed: Needed
    reason: str


def work(
    wanted: Sequence[Needed], machine: Machine, watch: Callable[[int, Needed, bool], None] = lambda *_: None
) -> list[Failure]:
    """Runs what is not there yet, one after another; one that fails stops no other, and is returned.

    ``watch(number, needed, cached)`` is told before each. Raises Interrupted after Ctrl-C or SIGTERM.
    """
    failures = []
    for number, needed in enumerate(wanted):
        done = needed.done(machine.results)
        watch(number, needed, done)
        if done:
            store.tidy(needed.path(machine.results))
            continue
        try:
            path = needed.path(machine.results)
            if not needed.fresh(machine.results):
                path = run(needed.experiment, machine).path
            for extra in needed.extras:
                derive(extra, needed.experiment, machine, path)
        except (Interrupted, KeyboardInterrupt):
            raise
        except Exception as error:
            failures.append(Failure(needed, f"{type(error).__name__}: {error}"))
    return failures


def derive(extra: Extra, experiment: Experiment, machine: Machine, path: Path) -> None:
    """Writes a file beside the result at ``path``, whole or not at all; nothing if it is there."""
    file = path.with_suffix(grid.ENDINGS[extra])
    if file.exists():
        return
    if extra == "split":
        world, samples = build(resolve(experiment, machine.data_root), machine, pick_device(machine.device))
        made = splits.make_split(
            list(world.train),
            list(world.test),
            samples.train_y.numpy(),
            samples.test_y.numpy(),
            dataset=samples.name,
            scheme=experiment.partition.name,
            fields=experiment.partition.fields,
            seed=experiment.partition_seed or 0,
        )
        splits.export_split(file, made)
        return
    lines = [",".join(map(str, row)) for row in band_rows(experiment, machine, store.load(path))]
    text = "\n".join(["round,permuted,band,divergence,relative,mass", *lines]) + "\n"
    files.publish(file, lambda draft: draft.write_text(text, encoding="utf-8"))


def band_rows(experiment: Experiment, machine: Machine, record: measures.Record) -> Iterator[tuple[float, ...]]:
    """Plays a finished run again and measures its models' bands on the way, mean over clients.

    Raises BadInput unless the final states are those of the record, so what was measured is what was evaluated.
    """
    world, _ = build(resolve(experiment, machine.data_root), machine, pick_device(machine.device))
    federation = engine.start(world)
    for round in range(experiment.rounds):
        federation, _ = engine.play(world, federation, round)
        if round + 1 in ROUNDS or round + 1 == experiment.rounds:
            for permuted in (False, True):
                for band, values in enumerate(_mean_bands(world, federation, permuted).tolist()):
                    yield round + 1, int(permuted), band, *values
    if files.fingerprint(tree.flatten(tuple(federation))) != record["fingerprint"]:
        raise BadInput(
            "result", record["address"], "does not come out the same on this machine; delete it and run again"
        )


def _mean_bands(world: engine.World, federation: engine.Federation, permuted: bool) -> torch.Tensor:
    """[bands, 3]: divergence, divergence per mass, mass."""
    gm, total = world.method.generic(federation.w), []
    if gm is None:
        raise BadInput("bands", type(world.method).__name__, "has no generic model to compare with")
    for client in range(world.clients):
        pm = world.method.deploy(federation.w, tree.each(lambda leaf: leaf[client], federation.c))  # noqa: B023
        if pm is None:
            raise BadInput("bands", type(world.method).__name__, "has no personal model to compare with")
        names = world.task.weights
        found = bands.bands([pm[name] for name in names], [gm[name] for name in names], permuted)
        total.append(torch.stack([found.divergence, found.relative, found.mass], dim=1))
    return torch.stack(total).mean(0)


# Whether it comes out the same


def verify(record: measures.Record, machine: Machine) -> list[str]:
    """What differs, provenance aside, when ``record`` is run again on this machine: one line each, none if identical.

    Raises BadInput for a record of an experiment that had fewer fields than it has now: it cannot be run again as it was.
    """
    made, experiment = record["provenance"], Experiment.of(record["experiment"])
    now = resolve(experiment, machine.data_root).experiment
    if now.address != record["address"]:
        known = record["experiment"]["method"]["fields"]
        added = ", ".join(f"{name}={value}" for name, value in now.method.fields.items() if name not in known)
        raise BadInput(
            "result", record["address"], f"made before {added or 'other fields'} were fields: it is another now"
        )
    with tempfile.TemporaryDirectory() as folder:
        same = replace(machine, results=Path(folder), engine=made["engine"], chunk=made["chunk"], keep_models=False)
        again = run(experiment, same).record
    old, new = ({**each, "provenance": None, "seal": None} for each in (record, again))
    return list(_differences(old, new))


def _differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for name in old:
            yield from _differences(old[name], new[name], f"{where}.{name}" if where else name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from _differences(*pair, f"{where}[{number}]")
    elif old != new:
        yield f"{where}: {old} in the result, {new} now"
