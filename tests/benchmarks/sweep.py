"""A small sweep of a method's fields on a validation split: prints a markdown table, best validation accuracy first.

    python tests/benchmarks/sweep.py spectral lam_g=0,0.1,1,10 lam_p=0,0.1,1,10 --seeds 3

A fifth of every client's training data is held out; nothing is chosen on a test set, and the test columns are shown
only so that a reader can see what the choice cost. Accuracies are means over seeds of the mean of the last ten
evaluations, in per cent.
"""

from itertools import product
from pathlib import Path

import click
import numpy as np

from pflbench.core import measures
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.run import run


def last10(counts: list[list[int]] | None, tested: list[int]) -> float:
    return float("nan") if counts is None else float(np.asarray(counts)[-measures.LAST :].sum(1).mean() / sum(tested))


@click.command()
@click.argument("method")
@click.argument("grid", nargs=-1)
@click.option("--seeds", default=3)
@click.option("--first-seed", default=100, help="Seeds of a sweep are not those of a study.")
@click.option("--results", type=click.Path(path_type=Path), default=Path("results/sweep"))
@click.option("--base", multiple=True, help="FIELD=VALUE of the experiment.")
def main(method: str, grid: tuple[str, ...], seeds: int, first_seed: int, results: Path, base: tuple[str, ...]) -> None:
    names = [axis.partition("=")[0] for axis in grid]
    values = [axis.partition("=")[2].split(",") for axis in grid]
    rows = []
    for point in product(*values):
        scores = []
        for seed in range(first_seed, first_seed + seeds):
            fields = {"name": method, "fields": dict(zip(names, point, strict=True))}
            common = {"validation": 0.2, "seed": seed, **dict(item.split("=", 1) for item in base)}
            record = run(Experiment.of({"method": fields, **common}), Machine(results=results)).record
            curve, clients = record["curve"], record["clients"]
            generic = measures.summary(measures.generic_curve(record)) or {"last10": float("nan")}
            scores.append(
                [
                    last10(curve["generic_validation"], clients["validation"]),
                    last10(curve["personal_validation"], clients["validation"]),
                    generic["last10"],
                    last10(curve["personal"], clients["test"]),
                ]
            )
        rows.append((*point, *(100 * np.mean(scores, axis=0))))
    rows.sort(key=lambda row: -np.nansum(row[-4:-2]))
    print(f"| {' | '.join(names)} | GM validation | PM validation | GM official test | PM local tests |")
    print("|" + "---|" * (len(names) + 4))
    for row in rows:
        print("| " + " | ".join([*row[:-4], *(f"{value:.2f}" for value in row[-4:])]) + " |")


if __name__ == "__main__":
    main()
