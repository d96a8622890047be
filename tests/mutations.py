"""Puts 18 defects of released code into a copy of this package, one at a time: named tests must fail on each.

    python tests/mutations.py [--markdown] [NUMBER ...]

Prints ``defect -> file changed -> tests that caught it``. Exit code 1 if a defect survives, if a test that is to catch
it fails without it, or if its text is no longer found. Each test fails by an assertion: a crash catches nothing.
"""

import importlib
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
COPIED = ("pflbench", "tests", "paper_figures", "pyproject.toml")
HEAVY = ("torch._dynamo", "torch.testing", "scipy.stats", "sklearn.datasets", "pandas", "matplotlib.figure", "pydantic",
         "yaml", "click.testing", "rich.table", "safetensors.torch", "hypothesis", "pytest")  # fmt: skip
QUICK = ("--assert=plain", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:xdist")
LAW = "tests/laws/test_laws.py::test_law[{}-{}]"
DEFECT = "tests/baselines/test_defects.py::test_{}"


class Mutation(NamedTuple):
    """A defect: its number in the list of 18, the method it is of ("": any), what it is, where, and who catches it.

    changes: (old, new) texts. tests: each must fail.
    """

    number: int
    method: str
    defect: str
    file: str
    changes: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        1,
        "spectral",
        "spectral term computed on detached weights",
        "pflbench/core/spectrum.py",
        (("(g.view_as(w) * w).sum()", "(g.view_as(w) * w.detach()).sum()"),),
        (LAW.format("spectral", "gradients_are_of_the_objective"), LAW.format("spectral", "defaults_do_something")),
    ),
    Mutation(
        2,
        "spectral",
        "generic and personal model share storage",
        "pflbench/engine/engine.py",
        (
            (
                "Federation(tree.clone(w), world.bank(c, world.clients))",
                "Federation(w, tree.each(lambda leaf: leaf.detach().expand(world.clients, *leaf.shape), c))",
            ),
        ),
        (LAW.format("ditto", "states_are_values"),),
    ),
    Mutation(
        2,
        "spectral",
        "... so that the generic model's training starts from the personal one",
        "pflbench/baselines/spectral.py",
        (('sgd(self._near(task, c["v"], "gm"), w, feed', 'sgd(self._near(task, c["v"], "gm"), c["v"], feed'),),
        (LAW.format("spectral", "spectral_without_pull_is_fedavg_and_local_training"),),
    ),
    Mutation(
        3,
        "",
        "list of local accuracies reset on the way",
        "pflbench/engine/evaluation.py",
        (("tests += _count(", "tests = _count("),),
        (DEFECT.format("every_client_is_counted[loop]"), DEFECT.format("every_client_is_counted[vmap]")),
    ),
    Mutation(
        3,
        "",
        "local accuracy of the last client only",
        "pflbench/core/measures.py",
        (
            (
                'np.asarray(correct).sum(1) / np.sum(record["clients"]["test"])',
                'np.asarray(correct)[:, -1] / record["clients"]["test"][-1]',
            ),
        ),
        (DEFECT.format("local_accuracy_is_over_all_clients"),),
    ),
    Mutation(
        4,
        "spectral",
        "truncation keeps the first layers, not the low frequencies",
        "pflbench/core/spectrum.py",
        (('if selection.keep == "prefix":', 'if selection.keep in ("low", "prefix"):'),),
        ("tests/core/test_spectral.py::test_every_layer_keeps_tau_of_its_bins[0.4-low]",),
    ),
    Mutation(
        5,
        "pfedme",
        "pFedMe's theta is w_k",
        "pflbench/baselines/pfedme.py",
        (("return w_k, theta", "return w_k, w_k"),),
        (LAW.format("pfedme", "theta_is_stored"), "tests/baselines/test_by_hand.py::test_pfedme[loop]"),
    ),
    Mutation(
        6,
        "pfedme",
        "pFedMe's personal model read after the broadcast",
        "pflbench/baselines/pfedme.py",
        (
            (
                "def deploy(self, w: State, c: State) -> State:\n        return c",
                "def deploy(self, w: State, c: State) -> State:\n        return w",
            ),
        ),
        (LAW.format("pfedme", "personal_models_are_trained"), LAW.format("pfedme", "theta_is_stored")),
    ),
    Mutation(
        7,
        "pfedme",
        "pFedMe's personal model never stored",
        "pflbench/baselines/pfedme.py",
        (("return w_k, theta", "return w_k, c"),),
        (LAW.format("pfedme", "personal_models_are_trained"), "tests/baselines/test_by_hand.py::test_pfedme[loop]"),
    ),
    Mutation(
        8,
        "pfedme",
        "pFedMe's beta is 0 by default",
        "pflbench/baselines/pfedme.py",
        (('README, MNIST", gt=0)] = 1.0', 'README, MNIST", gt=0)] = 0.0'),),
        (LAW.format("pfedme", "the_generic_model_moves"),),
    ),
    Mutation(
        9,
        "fedprox",
        "FedProx pushes away",
        "pflbench/baselines/fedprox.py",
        (("task.loss(p, batch) + self.mu", "task.loss(p, batch) - self.mu"),),
        (LAW.format("fedprox", "pull_is_the_papers"), "tests/baselines/test_by_hand.py::test_fedprox[loop]"),
    ),
    Mutation(
        9,
        "fedprox",
        "FedProx pulls by mu/2",
        "pflbench/baselines/fedprox.py",
        (("self.mu / 2", "self.mu / 4"),),
        (LAW.format("fedprox", "pull_is_the_papers"), "tests/baselines/test_by_hand.py::test_fedprox[loop]"),
    ),
    Mutation(
        9,
        "fedprox",
        "FedProx pulls by the norm, not squared",
        "pflbench/baselines/fedprox.py",
        (("self.mu / 2 * sq_dist(p, w)", "self.mu * (sq_dist(p, w) + 1e-12).sqrt()"),),
        (LAW.format("fedprox", "pull_is_the_papers"),),
    ),
    Mutation(
        10,
        "fedprox",
        "FedProx is off by default",
        "pflbench/baselines/fedprox.py",
        (("    ] = 1.0", "    ] = 0.0"),),
        (LAW.format("fedprox", "defaults_do_something"),),
    ),
    Mutation(
        10,
        "ditto",
        "Ditto is off by default",
        "pflbench/baselines/ditto.py",
        (("ge=0)] = 1.0", "ge=0)] = 0.0"),),
        (LAW.format("ditto", "defaults_do_something"),),
    ),
    Mutation(
        11,
        "ditto",
        "generic and personal accuracies in one list",
        "pflbench/experiment/run.py",
        (
            (
                "rows = [getattr(scores, name) for scores in journal.scores]",
                'both = ("generic", "personal") if name == "generic" else (name,)\n'
                "        rows = [getattr(scores, one) for scores in journal.scores for one in both]",
            ),
        ),
        (DEFECT.format("dittos_accuracies_are_kept_apart"),),
    ),
    Mutation(
        12,
        "ditto",
        "Ditto's personal model keeps its first batch statistics",
        "pflbench/baselines/ditto.py",
        (
            (
                "return sgd(near, c, feed, task)",
                "return {**c, **{n: x for n, x in sgd(near, c, feed, task).items() if n in task.parameters}}",
            ),
        ),
        (LAW.format("ditto", "statistics_are_state"),),
    ),
    Mutation(
        13,
        "fedrep",
        "FedRep deploys the average head where there is one",
        "pflbench/baselines/fedrep.py",
        (("return {**w, **c}\n", "return {**c, **w}\n"),),
        (DEFECT.format("an_unseen_client_of_fedrep_deploys_its_first_head[True]"),),
    ),
    Mutation(
        13,
        "fedrep",
        "the head of an unseen client of FedRep follows the average head",
        "pflbench/engine/engine.py",
        (
            (
                "    tree.put_rows(bank, index, c)\n",
                "    tree.put_rows(bank, index, c)\n"
                "    unseen = [client for client in range(world.clients) if client not in cohort]\n"
                "    for name in set(bank) & set(mean):\n"
                "        bank[name][unseen] = mean[name]\n",
            ),
        ),
        (DEFECT.format("an_unseen_client_of_fedrep_deploys_its_first_head[True]"),),
    ),
    Mutation(
        13,
        "fedrep",
        "FedRep's frozen half moved by momentum and weight decay",
        "pflbench/core/local.py",
        (
            (
                "    moving = tuple(task.parameters if names is None else names)\n",
                "    asked = tuple(task.parameters if names is None else names)\n    moving = tuple(task.parameters)\n",
            ),
            (
                "grads, buffers = gradient(loss, p, batch, moving)",
                "grads, buffers = gradient(loss, p, batch, asked)\n"
                "        grads = {name: grads.get(name, torch.zeros_like(p[name])) for name in moving}",
            ),
        ),
        (DEFECT.format("the_half_of_fedrep_that_does_not_train_keeps_its_bits"),),
    ),
    Mutation(
        14,
        "fedavg",
        "batch statistics left out of the aggregate",
        "pflbench/baselines/fedavg.py",
        (
            (
                "return sgd(task.loss, w, feed, task), c",
                "return {**w, **{n: x for n, x in sgd(task.loss, w, feed, task).items() if n in task.parameters}}, c",
            ),
        ),
        (
            LAW.format("fedavg", "statistics_are_state"),
            DEFECT.format("batch_statistics_are_averaged_with_the_weights_of_the_uploads"),
        ),
    ),
    Mutation(
        15,
        "",
        "a client smaller than a batch does no step",
        "pflbench/engine/engine.py",
        (
            (
                "table[epoch, : len(mine)] = mine[chance.permutation(len(mine))]",
                "whole = len(mine) // world.batch_size * world.batch_size\n"
                "        table[epoch, :whole] = mine[chance.permutation(len(mine))[:whole]]",
            ),
        ),
        (
            LAW.format("fedavg", "small_clients_train"),
            "tests/engine/test_engine.py::test_an_epoch_meets_every_sample_once",
        ),
    ),
    Mutation(
        16,
        "",
        "seeds added up",
        "pflbench/engine/engine.py",
        (('stream(world.seed, "batches", round, client,', 'stream(world.seed + client, "batches", round,'),),
        (DEFECT.format("no_two_seeds_clients_rounds_or_stages_share_batches"),),
    ),
    Mutation(
        17,
        "",
        "the best round on the test set is reported",
        "pflbench/core/measures.py",
        (('"last": float(curve[-1])', '"last": float(curve.max())'),),
        (DEFECT.format("the_last_round_is_reported_not_the_best"),),
    ),
    Mutation(
        17,
        "",
        "... and drawn",
        "pflbench/report/figures.py",
        (("else float(curve[-1])", "else float(curve.max())"),),
        ("tests/report/test_accuracy.py::test_the_best_round_is_never_reported",),
    ),
    Mutation(
        18,
        "",
        "a crashed run is left out of a mean",
        "pflbench/report/finished.py",
        (("if count != 1:", "if count > 1:"), ("if len(chosen) != len(seeds):", "if len(chosen) > len(seeds):")),
        ("tests/report/test_finished.py::test_collect_fails_on_a_missing_and_on_a_doubled_run",),
    ),
    Mutation(
        18,
        "",
        "a missing run is left out of a figure",
        "pflbench/report/finished.py",
        (("        if not file.exists():\n", "        if not file.exists():\n            continue\n"),),
        (DEFECT.format("a_figure_is_not_drawn_without_one_of_its_runs"),),
    ),
)


class Reporter:
    """A pytest plug-in: test id -> "passed", or how it failed; an error outside a test's body is its own kind."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        import pytest

        if call.excinfo is not None:
            asserted = call.when == "call" and call.excinfo.errisinstance((AssertionError, pytest.fail.Exception))
            self.outcomes[item.nodeid] = "failed" if asserted else f"crashed: {call.excinfo.exconly()[:200]}"
        elif call.when == "call":
            self.outcomes[item.nodeid] = "passed"


def run_tests(tests: Sequence[str], mutation: Mutation | None) -> dict[str, str]:
    """How ``tests`` end in a fresh copy with the mutation, in a forked process that shares the heavy imports."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("out"))
            else:
                shutil.copy2(ROOT / name, place / name)
        if mutation is not None:
            file = place / mutation.file
            text = file.read_text(encoding="utf-8")
            for old, new in mutation.changes:
                if text.count(old) != 1:
                    return {test: f"does not apply: {text.count(old)} x {old!r}" for test in tests}
                text = text.replace(old, new)
            file.write_text(text, encoding="utf-8")
        child = os.fork()
        if child == 0:
            in_child(tests, place)
        os.waitpid(child, 0)
        answer = place / "outcomes.json"
        if not answer.exists():
            raise RuntimeError((place / "output.txt").read_text(encoding="utf-8")[-3000:])
        found = json.loads(answer.read_text(encoding="utf-8"))
        return {test: found.get(test, "did not run") for test in tests}


def in_child(tests: Sequence[str], place: Path) -> None:
    """Runs ``tests`` in the copy at ``place`` and ends the process."""
    import pytest

    os.chdir(place)
    sys.path[:0] = [str(place), str(place / "tests")]
    sys.dont_write_bytecode = True
    reporter = Reporter()
    with open("output.txt", "w", encoding="utf-8") as output, redirect_stdout(output), redirect_stderr(output):
        try:
            pytest.main([*QUICK, *tests], plugins=[reporter])
            assert Path(sys.modules["pflbench"].__file__ or "").is_relative_to(place), "the copy was not imported"
            Path("outcomes.json").write_text(json.dumps(reporter.outcomes), encoding="utf-8")
        except BaseException:
            traceback.print_exc()
        output.flush()
        os._exit(0)


def table(numbers: Sequence[int] = ()) -> tuple[list[tuple[Mutation, bool]], list[str]]:
    """Every mutation (or those of ``numbers``) and whether all of its tests caught it; and what went wrong."""
    for name in HEAVY:
        importlib.import_module(name)
    assert "pflbench" not in sys.modules, "each copy imports its own"
    chosen = [mutation for mutation in MUTATIONS if not numbers or mutation.number in numbers]
    every = list(dict.fromkeys(test for mutation in chosen for test in mutation.tests))
    wrong = [f"unmutated: {test}: {end}" for test, end in run_tests(every, None).items() if end != "passed"]
    rows = []
    for mutation in chosen:
        ends = run_tests(mutation.tests, mutation)
        wrong += [f"{mutation.number} {mutation.defect}: {t}: {end}" for t, end in ends.items() if end != "failed"]
        rows.append((mutation, set(ends.values()) == {"failed"}))
    return rows, wrong


def markdown(rows: Sequence[tuple[Mutation, bool]]) -> str:
    lines = ["| # | defect put in | file changed | caught by |", "|---|---|---|---|"]
    for mutation, caught in rows:
        tests = ", ".join(f"`{test.removeprefix('tests/')}`" for test in mutation.tests)
        lines.append(
            f"| {mutation.number} | {mutation.defect} | `{mutation.file}` | {tests if caught else 'SURVIVED'} |"
        )
    return "\n".join(lines)


HEAD = """# Defects of released code, put back

Each of these 18 defects was found in released code of federated learning. `python tests/mutations.py` puts them into a
copy of this package one at a time, in {count} forms, and runs the tests that must notice; CI runs it too.
Caught: {caught} of {count}. Every test in the last column passes as it stands and fails, by an assertion, on that defect.
"""


def main() -> None:
    numbers = [int(argument) for argument in sys.argv[1:] if argument != "--markdown"]
    rows, wrong = table(numbers)
    if "--markdown" in sys.argv:
        print(HEAD.format(count=len(rows), caught=sum(caught for _, caught in rows)))
        print(markdown(rows))
    else:
        for mutation, caught in rows:
            by = ", ".join(mutation.tests) if caught else "SURVIVED"
            print(f"{mutation.number:2d} {mutation.defect} -> {mutation.file} -> {by}")
        distinct = {mutation.number for mutation in MUTATIONS} & {mutation.number for mutation, _ in rows}
        lost = {mutation.number for mutation, caught in rows if not caught}
        print(f"{len(distinct - lost)} of {len(distinct)} defects caught, in {len(rows)} forms")
    for line in wrong:
        print(line, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
