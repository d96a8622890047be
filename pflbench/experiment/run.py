"""(Experiment, Machine) -> result: plays the rounds, keeps checkpoints, publishes once.

Killed at any moment and started again, a run goes on from its checkpoint; the result equals the uninterrupted one byte
for byte, provenance aside.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pflbench.core import files, tree
from pflbench.core.errors import BadInput, printable
from pflbench.core.measures import Record
from pflbench.data.samples import Samples
from pflbench.engine import engine
from pflbench.engine.evaluation import Scores, evaluate
from pflbench.experiment import store
from pflbench.experiment.build import build, pick_device, switches_kept
from pflbench.experiment.code import changed, code_of, differing
from pflbench.experiment.experiment import MEANING, Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.provenance import provenance
from pflbench.experiment.record import sealed
from pflbench.experiment.resolve import resolve

SELDOM = 20  # times as long as the last checkpoint took there is none: large states cost at most a twentieth


class Interrupted(Exception):
    """The run was asked to stop and has stopped after a whole round, with a checkpoint."""


@dataclass(frozen=True)
class Progress:
    """After round ``round`` of ``rounds``: latest accuracies, as fractions, where known."""

    round: int
    rounds: int
    generic: float | None
    personal: float | None


@dataclass(frozen=True)
class Outcome:
    """A finished experiment and where its record lies; ``cached`` if it was there before."""

    record: Record
    path: Path
    cached: bool


@dataclass
class Journal:
    """What a record will hold, filled round by round."""

    rounds: list[int] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    costs: list[engine.Cost] = field(default_factory=list)
    diverged: int | None = None
    seconds: float = 0.0

    def note(self) -> Record:
        """As plain JSON, for a checkpoint."""
        return {**vars(self), "scores": [list(s) for s in self.scores], "costs": [list(c) for c in self.costs]}

    @classmethod
    def of(cls, note: Record) -> "Journal":
        scores = [Scores(*row) for row in note["scores"]]
        return cls(**{**note, "scores": scores, "costs": [engine.Cost(*row) for row in note["costs"]]})


@switches_kept()
def run(experiment: Experiment, machine: Machine, watch: Callable[[Progress], None] = lambda _: None) -> Outcome:
    """The result of ``experiment``: read if it is there, resumed or computed if not.

    Raises BadInput for anything that cannot be used, before a file is written; Interrupted after Ctrl-C or SIGTERM.
    """
    resolved = resolve(experiment, machine.data_root)
    experiment = resolved.experiment
    path = store.result_path(machine.results, experiment.method.name, experiment.address)
    found, _ = stored(experiment, machine, path)
    if found is not None:
        store.tidy(path)
        return found
    world, samples = build(resolved, machine, pick_device(machine.device))
    store.writable(machine.results)
    name = f"{experiment.method.name} {experiment.address}"
    with files.alone(store.lock_path(path), lambda: say(f"{name} is being run by another process; waiting for it")):
        found, others = stored(experiment, machine, path)  # what was waited for
        if found is not None:
            return found
        if others:
            say(f"{name} was run by other code ({', '.join(others)} changed since); it is run again")
        return compute(experiment, machine, watch, world, samples, path, bool(others))


def stored(experiment: Experiment, machine: Machine, path: Path) -> tuple[Outcome | None, list[str]]:
    """What lies at ``path``, if it is all that is asked for; the files of ours that have changed since it was made."""
    if not path.exists():
        return None, []
    found = store.load(path)
    others = changed(found)
    if others or (machine.keep_models and not path.with_suffix(".safetensors").exists()):
        return None, others
    return Outcome(found, path, cached=True), []


def compute(
    experiment: Experiment,
    machine: Machine,
    watch: Callable[[Progress], None],
    world: engine.World,
    samples: Samples,
    path: Path,
    replaces: bool,
) -> Outcome:
    """Plays the rounds that are not done yet and publishes the result at ``path``. replaces: one of other code there."""
    kept, checkpoint, code = path.with_suffix(".safetensors"), store.checkpoint_path(path), code_of(experiment)
    federation, journal, done = engine.start(world), Journal(), 0
    if checkpoint.exists():
        federation, journal, done = go_on(federation, journal, checkpoint, experiment, code)
    began, saved, points = time.monotonic(), time.monotonic(), set(experiment.evaluated())
    pause, failed = machine.checkpoint_s, ""
    with stopping() as stop:
        for round in range(done, experiment.rounds):
            federation, cost = engine.play(world, federation, round)
            journal.costs.append(cost)
            if round + 1 in points:
                journal.rounds.append(round + 1)
                journal.scores.append(evaluate(world, federation, round))
                if journal.diverged is None and not engine.finite(federation):
                    journal.diverged = round + 1
            watch(progress(world, journal, round + 1, experiment.rounds))
            last = round + 1 == experiment.rounds
            if not last and (stop() or time.monotonic() - saved >= pause):
                now = time.monotonic()
                journal.seconds += now - began
                began = now
                note = {"address": experiment.address, "code": code, "done": round + 1, "journal": journal.note()}
                try:
                    files.save_state(checkpoint, tree.flatten(tuple(federation)), note)
                    failed = ""
                except BadInput as error:  # a full disk costs the checkpoint, not the run
                    failed = said_once(failed, f"no checkpoint after round {round + 1}, the run goes on: {error}")
                saved = time.monotonic()
                if pause:
                    pause = max(machine.checkpoint_s, SELDOM * (saved - now))
            if stop() and not last:
                onwards = "without a checkpoint" if failed else "the same command goes on from there"
                raise Interrupted(f"stopped after round {round + 1} of {experiment.rounds}; {onwards}")
    journal.seconds += time.monotonic() - began
    record = make_record(experiment, machine, world, samples, federation, journal, code)
    store.publish(path, record)
    if replaces:
        store.forget_derived(path)
    checkpoint.unlink(missing_ok=True)
    if machine.keep_models:
        files.save_state(kept, tree.flatten({"w": federation.w, "c": federation.c}), {"address": experiment.address})
    return Outcome(record, path, cached=False)


def say(text: str) -> None:
    """One line about this run, on standard error."""
    print(f"pflbench: {printable(text)}", file=sys.stderr)


def said_once(before: str, text: str) -> str:
    """``text``, said unless something was said ``before``."""
    if not before:
        say(text)
    return text


def go_on(
    blank: engine.Federation, empty: Journal, path: Path, experiment: Experiment, code: Mapping[str, str]
) -> tuple[engine.Federation, Journal, int]:
    """(federation, journal, rounds done) of the checkpoint at ``path``, or the start where it is other code's.

    Raises BadInput for one that is another run's or cannot be.
    """
    leaves, note = files.load_state(path)
    try:
        done, journal, made = note["done"], Journal.of(note["journal"]), note.get("code", {})
        found = note.get("address", experiment.address)
        points = [point for point in experiment.evaluated() if point <= done]
        fits = 0 < done < experiment.rounds and len(journal.costs) == done and journal.rounds == points
        fits = fits and len(journal.scores) == len(points)
        others = differing(made, code)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadInput("checkpoint", path, "is no checkpoint of a run; delete it to start over") from None
    if found != experiment.address:
        raise BadInput("checkpoint", path, f"is of another run, {found}; delete it to start over")
    if others:
        say(f"{path}: made by other code ({', '.join(others[:3])} changed since); starting over")
        path.unlink()
        return blank, empty, 0
    if not fits:
        raise BadInput(
            "checkpoint", path, f"cannot be after {done} of {experiment.rounds} rounds; delete it to start over"
        )
    return resume(blank, leaves, path), journal, done


def resume(blank: engine.Federation, leaves: dict[str, torch.Tensor], path: Path) -> engine.Federation:
    """``leaves`` in the structure of ``blank``. Raises BadInput if they do not fit."""
    wanted = tree.flatten(tuple(blank))
    if {name: leaf.shape for name, leaf in wanted.items()} != {name: leaf.shape for name, leaf in leaves.items()}:
        raise BadInput("checkpoint", path, "belongs to another version of this method; delete it to start over")
    for name, leaf in wanted.items():  # in place: a bank stays where it was put
        leaf.copy_(leaves[name])
    return blank


def progress(world: engine.World, journal: Journal, round: int, rounds: int) -> Progress:
    """The latest accuracies: GM on the official test set, PM over all local tests."""
    if not journal.scores:
        return Progress(round, rounds, None, None)
    scores, tested = journal.scores[-1], sum(len(part) for part in world.test)
    generic = None if scores.official is None else scores.official / len(world.official.y)
    return Progress(round, rounds, generic, None if scores.personal is None else sum(scores.personal) / tested)


def make_record(
    experiment: Experiment,
    machine: Machine,
    world: engine.World,
    samples: Samples,
    federation: engine.Federation,
    journal: Journal,
    code: Mapping[str, str],
) -> Record:
    """The result as plain JSON: raw counts and integers; only ``provenance`` differs between two runs."""
    curve: dict[str, Any] = {"rounds": journal.rounds}
    for name in Scores._fields:
        rows = [getattr(scores, name) for scores in journal.scores]
        curve[name] = None if rows[0] is None else rows
    record = {
        "address": experiment.address,
        "meaning": MEANING,
        "experiment": experiment.model_dump(),
        "rounds": experiment.rounds,
        "diverged": journal.diverged,
        "clients": {
            "train": [len(part) for part in world.train],
            "test": [len(part) for part in world.test],
            "validation": [len(part) for part in world.validation],
            "official": len(samples.test_y),
        },
        "cohorts": [cost.cohort for cost in journal.costs],
        "costs": {
            "contribute": [cost.contribute for cost in journal.costs],
            "personalise": [cost.personalise for cost in journal.costs],
            "up": journal.costs[0].up,
            "down": journal.costs[0].down,
            "bytes_per_number": 4,
        },
        "curve": curve,
        "fingerprint": files.fingerprint(tree.flatten(tuple(federation))),
        "provenance": provenance(machine, world, samples, journal.seconds, code),
    }
    return sealed(record)


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a flag that is read between rounds; the second acts at once."""
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("\nstopping after this round; once more to stop now (the last checkpoint stays)", file=sys.stderr)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread
        before = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
