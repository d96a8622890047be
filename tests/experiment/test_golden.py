"""Numbers do not move unnoticed: counts of small float64 runs, stored with the ``MEANING`` that they belong to.

If a change moves them on purpose, raise ``MEANING`` and run ``python tests/experiment/test_golden.py``.
"""

import json
import tempfile
from pathlib import Path

import pytest

from pflbench.baselines import METHODS
from pflbench.experiment.experiment import MEANING, Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.run import run

FILE = Path(__file__).parents[1] / "golden" / "counts.json"


def counts(method: str) -> dict:
    """Everything a short run counts."""
    experiment = Experiment.of(
        {"method": method, "clients": 8, "rounds": 3, "epochs": 1, "precision": "float64", "validation": 0.1, "seed": 7}
    )
    with tempfile.TemporaryDirectory() as folder:
        record = run(experiment, Machine(device="cpu", results=Path(folder))).record
    return {
        "address": record["address"],
        "curve": record["curve"],
        "cohorts": record["cohorts"],
        "costs": record["costs"],
    }


@pytest.mark.parametrize("method", METHODS.names())
def test_numbers_have_not_moved(method):
    golden = json.loads(FILE.read_text())
    assert golden["meaning"] == MEANING, "MEANING was raised: run python tests/experiment/test_golden.py"
    assert counts(method) == golden["counts"][method]


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    found = {method: counts(method) for method in METHODS.names()}
    FILE.write_text(json.dumps({"meaning": MEANING, "counts": found}, indent=1) + "\n")
