"""A markdown table of finished runs: methods x (GM, PM micro, macro, worst decile, share of clients worse than local-only).

    pflbench grid accuracy --scale fashion_mlp --data-root DIR --results results/reference
    python tests/benchmarks/reference_table.py fashion_mlp > results/reference/fashion_mlp.md

Last round; mean and sample standard deviation over seeds, in per cent. A generic model is tested on the clients' tests
too, so that methods without personal models can be compared with those that have them.
"""

from pathlib import Path

import click
import numpy as np

from pflbench.core import measures
from pflbench.experiment import store
from pflbench.report import stats
from pflbench.study.workload import Plan


def cell(values: list[float]) -> str:
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}" if values else "-"


@click.command()
@click.argument("scale")
@click.option("--results", type=click.Path(path_type=Path), default=Path("results/reference"))
def main(scale: str, results: Path) -> None:
    plan = Plan.of(scale, figures=["accuracy"])
    records: dict[str, list[measures.Record]] = {}
    for number in range(plan.parts):
        for needed in plan.part(number):
            record = store.load(store.find(results, needed.address))
            records.setdefault(record["experiment"]["method"]["name"], []).append(record)
    local = {
        record["experiment"]["seed"]: np.array(record["curve"]["personal"][-1]) for record in records["local_only"]
    }
    print("| method | model | official test | micro | macro | worst decile | clients worse than local-only | seeds |")
    print("|---|---|---|---|---|---|---|---|")
    for name, runs in sorted(records.items()):
        for which, label in (("generic", "GM"), ("personal", "PM")):
            if runs[0]["curve"][which] is None:
                continue
            columns: list[list[float]] = [[], [], [], [], []]
            for record in runs:
                correct, tested = np.array(record["curve"][which][-1]), np.array(record["clients"]["test"])
                reference = local[record["experiment"]["seed"]]
                official = measures.generic_curve(record) if which == "generic" else None
                if official is not None:
                    columns[0].append(float(official[-1]))
                for column, measure in zip(columns[1:4], (stats.micro, stats.macro, stats.worst_decile), strict=True):
                    column.append(float(measure(correct, tested)))
                if name != "local_only":
                    columns[4].append(float(stats.share_below(correct, tested, reference)))
            print(f"| {name} | {label} | {' | '.join(map(cell, columns))} | {len(runs)} |")


if __name__ == "__main__":
    main()
