"""Prints one page on how far each method can be trusted, as markdown: oracle error, laws, defects caught. Two minutes.

python tests/benchmarks/conformance.py
"""

import sys
from pathlib import Path

PARTS = ("server", "clients", "deployed")


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import mutations

    defects, wrong = mutations.table()  # before anything imports pflbench: each defect has a copy of its own
    from test_oracles import oracle_table

    from pflbench.baselines import METHODS
    from pflbench.laws import laws

    errors: dict[str, float] = {}
    for row in oracle_table():
        name = str(row["method"]).split(",")[0]
        errors[name] = max(errors.get(name, 0.0), *(float(row[part] or 0.0) for part in PARTS))
    print("# Conformance\n")
    print("Oracle: largest difference of any state from an independent implementation after three rounds, in float64.")
    print(
        "Laws: those of `pflbench check` that hold, of those that apply. Defects: of released code, put back and caught.\n"
    )
    print("| method | oracle | laws | defects |\n|---|---|---|---|")
    for name in (*METHODS.names(), ""):
        held: list[bool | None] = [verdict.holds for verdict in laws.check(name)] if name else []
        caught: list[bool | None] = [caught for mutation, caught in defects if mutation.method == name]
        counts = [f"{part.count(True)} of {len(part) - part.count(None)}" for part in (held, caught)]
        cells = [f"`{name}`", f"{errors[name]:.1e}", counts[0]] if name else ["engine, evaluation, reports", "", ""]
        print("|", " | ".join([*cells, counts[1] if caught else ""]), "|")
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
