"""How fast two ways of computing the same thing part: prints a markdown table, the loop against vmap in float64.

    python tests/benchmarks/stability.py spectral lam_g=0,0.1,1 lam_p=0,0.1,0.3,1,10

The default experiment (digits) for some rounds; each number is the largest difference of any state. Rounding alone stays
near 1e-15. Where it grows, training is chaotic at this learning rate: the same engine still gives the same bits, but a
last digit decides what is learned, so such a setting cannot be compared between machines.
"""

from itertools import product

import click
import torch

from pflbench.engine import engine
from pflbench.experiment.build import build
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.laws import laws


@click.command()
@click.argument("method")
@click.argument("grid", nargs=-1)
@click.option("--rounds", default=10)
def main(method: str, grid: tuple[str, ...], rounds: int) -> None:
    names = [axis.partition("=")[0] for axis in grid]
    shown = [1, rounds // 2, rounds]
    print(f"| {' | '.join(names)} | {' | '.join(f'after {r} rounds' for r in shown)} |")
    print("|" + "---|" * (len(names) + len(shown)))
    for point in product(*(axis.partition("=")[2].split(",") for axis in grid)):
        fields = dict(zip(names, point, strict=True))
        experiment = resolve(Experiment.of({"method": {"name": method, "fields": fields}, "precision": "float64"}))
        worlds = [build(experiment, Machine(engine=way), torch.device("cpu"))[0] for way in ("loop", "vmap")]
        states, gaps = [engine.start(world) for world in worlds], []
        for round in range(rounds):
            states = [engine.play(w, state, round)[0] for w, state in zip(worlds, states, strict=True)]
            gaps.append(laws.distance(*states))
        print("| " + " | ".join([*point, *(f"{gaps[r - 1]:.0e}" for r in shown)]) + " |", flush=True)


if __name__ == "__main__":
    main()
