"""How fast two ways of computing the same thing part: prints a markdown table, the loop against vmap in float64.

    python tests/benchmarks/stability.py spectral smoothing=1e-6,1e-3,1e-2 lam_p=0.3,3,30 lam_g=0.1,1 --rounds 20

The default experiment (digits); each number is the largest difference of any state. Rounding alone stays near 1e-15.
Where it grows, training is chaotic at this learning rate: the same engine still gives the same bits, but a last digit
decides what is learned, so such a setting cannot be compared between machines. A point is given up once it has passed
``--chaos``, and then marked with the round. The first field is down, the second across, of all others the worst is shown;
``*`` where they stay below ``--bound``.
"""

from collections.abc import Sequence
from itertools import product

import click
import torch

from pflbench.engine import engine
from pflbench.experiment.build import build
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.laws import laws


def gaps(method: str, fields: dict[str, str], rounds: int, chaos: float, base: Sequence[str]) -> list[float]:
    """The gap after every round, up to the one that passes ``chaos``."""
    given = {"method": {"name": method, "fields": fields}, "precision": "float64"}
    experiment = resolve(Experiment.of({**given, **dict(item.split("=", 1) for item in base)}))
    worlds = [build(experiment, Machine(engine=way), torch.device("cpu"))[0] for way in ("loop", "vmap")]
    states, found = [engine.start(world) for world in worlds], []
    for round in range(rounds):
        states = [engine.play(w, state, round)[0] for w, state in zip(worlds, states, strict=True)]
        found.append(laws.distance(*states))
        if not found[-1] < chaos:  # or no number
            break
    return found


@click.command()
@click.argument("method")
@click.argument("grid", nargs=-1, required=True)
@click.option("--rounds", default=10)
@click.option("--chaos", default=1e-6, help="Give a point up beyond this gap.")
@click.option("--bound", default=1e-9, help="Below it the two engines are together.")
@click.option("--base", multiple=True, help="FIELD=VALUE of the experiment.")
def main(method: str, grid: tuple[str, ...], rounds: int, chaos: float, bound: float, base: tuple[str, ...]) -> None:
    names = [axis.partition("=")[0] for axis in grid]
    values = [axis.partition("=")[2].split(",") for axis in grid] + [[""]] * (len(grid) == 1)
    across = names[1] if len(names) > 1 else ""
    print(f"| {names[0]} | {' | '.join(f'{across} {value}'.strip() or 'gap' for value in values[1])} |")
    print("|" + "---|" * (1 + len(values[1])))
    for down in values[0]:
        cells = []
        for column in values[1]:
            points = product([down], [column], *values[2:])
            every = [gaps(method, dict(zip(names, p, strict=False)), rounds, chaos, base) for p in points]
            worst = max(every, key=lambda found: (-len(found), found[-1]))
            early = f" (round {len(worst)})" if len(worst) < rounds or not worst[-1] < chaos else ""
            cells.append(f"{worst[-1]:.0e}{early}{'*' if worst[-1] < bound else ''}")
        print(f"| {down} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
