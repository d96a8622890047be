# The study: run -> figure -> report. What is run is said in paper_figures/*/grid.yaml and scales.yaml, not here.
#
#   snakemake --cores all                                        desk scale, minutes on 2 cores
#   snakemake --cores all --config scale=fashion                 --resources gpu=4: so many runs share a GPU
#   snakemake --cores all --config seeds=5 methods=spectral,ditto settings=dirichlet,shards
#
# Killed and started again it goes on: a result appears whole or not at all, and what is there is not run again. A run
# that fails fails its figures and the report.
import os
import re
import sys
from pathlib import Path

import torch

from pflbench.study.grid import FIGURES, Narrow, out_folder
from pflbench.study.workload import Workload

SCALE = config.get("scale", "desk")
NARROW = {name: str(config[name]) for name in ("seeds", "methods", "settings") if name in config}
OPTIONS = " ".join(f"--{name} {value}" for name, value in NARROW.items())
RESULTS = Path("results")
PFLBENCH = f"{sys.executable} -m pflbench.cli"
os.environ["OMP_NUM_THREADS"] = "1"  # one job, one core
LISTS = {name: value.split(",") for name, value in NARROW.items() if name != "seeds"}
DATA = os.environ.get("PFLBENCH_DATA")
WORKLOAD = Workload.of(SCALE, narrow=Narrow(int(NARROW.get("seeds", 0)) or None, **LISTS), data=DATA and Path(DATA))
if not any(re.fullmatch("--dry-?run|-[a-z]*n[a-z]*", each) for each in sys.argv):
    WORKLOAD.write()  # now, not by a rule: whatever another command wrote there since must not be drawn; a dry run may not
PARTS = {number: RESULTS / ".parts" / f"{SCALE}-{WORKLOAD.key}-{number + 1}" for number in range(WORKLOAD.parts)}
for number, marker in PARTS.items():
    if not all(needed.done(RESULTS) for needed in WORKLOAD.part(number)):
        marker.unlink(missing_ok=True)  # a result was deleted since


TABLES = [figure for figure in WORKLOAD.manifests if re.search(r"\blatex\b", (FIGURES / figure / "figure.py").read_text())]


def out(figure, ending):
    return out_folder(figure, SCALE) / f"{figure}.{ending}"


def manifest(figure):
    """Which runs the figure is drawn from, so that it is drawn again when they change; a dry run writes none."""
    path = out(figure, "").with_name("runs.json")
    return [path] if path.exists() else []


GAIN = [FIGURES / "gain" / "out" / f"gain.{ending}" for ending in ("csv", "pdf", "png", "svg")]


rule all:
    input:
        PARTS.values(),
        [out(figure, ending) for figure in WORKLOAD.manifests for ending in ("csv", "png")],
        [out(figure, "tex") for figure in TABLES],
        GAIN,
        FIGURES / "out" / SCALE / "report.html",


rule run:
    output:
        touch(RESULTS / ".parts" / f"{SCALE}-{WORKLOAD.key}-{{number}}"),
    threads: 1
    resources:
        gpu=int(torch.cuda.is_available()),
    shell:
        f"{PFLBENCH} grid --scale {SCALE} {OPTIONS} --threads {{threads}} --part {{wildcards.number}}/{WORKLOAD.parts}"


for figure in WORKLOAD.manifests:

    rule:
        name: f"figure_{figure}"
        input:
            [PARTS[number] for number in WORKLOAD.parts_of(figure)],
            manifest(figure),
            code=FIGURES / figure / "figure.py",
        output:
            [out(figure, ending) for ending in ("csv", "pdf", "svg")],
            [out(figure, "tex")] if figure in TABLES else [],
            report(
                out(figure, "png"),
                caption=str(FIGURES / "caption.rst"),
                category=WORKLOAD.manifests[figure]["category"],
                labels={"figure": WORKLOAD.manifests[figure]["title"]},
            ),
        threads: 1
        params:
            figure=figure,
            caption=WORKLOAD.manifests[figure]["caption"],
        shell:
            f"{PFLBENCH} figure {{params.figure}} --scale {SCALE}"


rule figure_gain:
    input:
        FIGURES / "gain" / "figure.py",
    output:
        GAIN,
    threads: 1
    shell:
        f"{sys.executable} {FIGURES / 'gain' / 'figure.py'}"


rule report_page:
    input:
        [out(figure, "csv") for figure in WORKLOAD.manifests],
        GAIN,
        FIGURES / "claims.yaml",
    output:
        FIGURES / "out" / SCALE / "report.html",
    threads: 1
    shell:
        f"{PFLBENCH} report {' '.join(WORKLOAD.manifests)} --scale {SCALE}"
