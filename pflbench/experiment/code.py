"""Which code of ours a result was made by: the files that its numbers go through, each hashed when this module is loaded.

Hashes leave out comments and layout. A result of this release that was made by other code is not taken for this code's;
that of another release is, unless ``MEANING`` was raised. A user's own code is part of the address instead.
"""

from collections.abc import Mapping
from pathlib import Path

import pflbench
from pflbench import __version__
from pflbench.core.measures import Record
from pflbench.core.registry import digest_of
from pflbench.experiment.experiment import MEANING, Experiment

ROOT = Path(pflbench.__file__).parent
ALWAYS = (
    *(f"core/{name}.py" for name in ("local", "method", "spectrum", "streams", "tree")),
    *(f"data/{name}.py" for name in ("partitions", "samples", "schemes")),
    *(f"experiment/{name}.py" for name in ("build", "cutoff", "schedules")),
)
WINGS = ("engine", "models")
CHOSEN = {"method": "baselines", "dataset": "data/sets"}  # field -> where what is built in lies, one file each
CLOCK = ("clock/fleet.py", "clock/timeline.py")  # where personal work is cut off


def _hashed() -> dict[str, str]:
    folders = (path for wing in (*WINGS, *CHOSEN.values()) for path in sorted((ROOT / wing).glob("*.py")))
    paths = [*(ROOT / name for name in (*ALWAYS, *CLOCK)), *folders]
    return {path.relative_to(ROOT).as_posix(): digest_of(path.read_bytes()) for path in paths}


HASHES: Mapping[str, str] = _hashed()


def code_of(experiment: Experiment) -> dict[str, str]:
    """File -> 16 hex digits, for every file of ours that the numbers of ``experiment`` go through."""
    own = {f"{folder}/{getattr(experiment, field).name}.py" for field, folder in CHOSEN.items()}
    clock = CLOCK if experiment.cut is not None else ()
    return {
        name: digits
        for name, digits in HASHES.items()
        if name in (*ALWAYS, *clock) or name in own or name.split("/")[0] in WINGS
    }


def changed(record: Record) -> list[str]:
    """The files that have changed since ``record`` was made, if that was by this release; none where it is not known."""
    made = record["provenance"].get("code")
    if made is None or (record["provenance"].get("version"), record["meaning"]) != (__version__, MEANING):
        return []
    return differing(made, code_of(Experiment.of(record["experiment"])))


def differing(made: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The files that are not the same in both."""
    return sorted(name for name in made.keys() | now.keys() if made.get(name) != now.get(name))
