"""Prints the oracle table: how far every method is from its independent implementation, in float64, as markdown.

    python tests/benchmarks/oracle_table.py

Each number is the largest absolute difference after three rounds over the settings of tests/baselines/test_oracles.py.
"""

import sys
from pathlib import Path

PARTS = ("server", "clients", "deployed")


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from test_oracles import oracle_table

    print("| method | engine | server's state | clients' states | deployed models |\n|---|---|---|---|---|")
    for row in oracle_table():
        errors = ["none" if row[part] is None else f"{row[part]:.1e}" for part in PARTS]
        print("|", " | ".join([str(row["method"]), str(row["engine"]), *errors]), "|")


if __name__ == "__main__":
    main()
