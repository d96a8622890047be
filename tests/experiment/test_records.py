"""A stored result is what was written, or one line says that it is not, in every command that reads it."""

import json
import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from studies import ROOT

from pflbench.cli import main
from pflbench.core.errors import BadInput
from pflbench.experiment import store
from pflbench.experiment.record import sealed, unsealed

REFERENCE = sorted(ROOT.glob("results/reference/*/*.json"))
COMMANDS = {
    "show": lambda address: ["show", address],
    "timeline": lambda address: ["timeline", address],
    "verify": lambda address: ["verify", address],
    "figure": lambda address: ["figure", "one", "--scale", "tiny"],
    "trace": lambda address: ["trace", "one", "--scale", "tiny"],
    "claims": lambda address: ["claims", "--scale", "tiny"],
    "report": lambda address: ["report", "one", "--scale", "tiny"],
}
CLAIM = """
C1: {text: a, figure: one, measures: [GM], threshold: 0.0,
     contrasts: [{a: {label: fedavg}, b: {label: ditto, fields: {method.lam: 1.0}}}]}
"""


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def one_line(outcome):
    """The line on standard error; fails for a traceback or a table of what cannot be trusted."""
    assert outcome.exit_code == 2, (outcome.output, outcome.exception)
    assert not outcome.stdout
    (line,) = outcome.stderr.splitlines()
    assert line.isprintable()
    return line


def test_results_from_before_there_were_seals_are_read_and_said_to_be_unsealed(monkeypatch):
    assert len(REFERENCE) > 200
    assert all(unsealed(store.load(path)) for path in REFERENCE)
    shown = call("show", REFERENCE[0].stem, "--results", ROOT / "results")
    assert "unsealed" in shown.stdout
    assert shown.exit_code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_a_changed_count_is_named_and_never_drawn(copy, command):
    Path("paper_figures/claims.yaml").write_text(CLAIM)
    call("figure", "--scale", "tiny")
    path = next(Path("results/fedavg").glob("*.json"))
    assert call(*COMMANDS[command](path.stem)).exit_code == 0
    record = json.loads(path.read_text())
    record["curve"]["official"][-1] ^= 128
    path.write_text(json.dumps(record))
    line = one_line(call(*COMMANDS[command](path.stem)))
    assert path.stem in line
    assert "its checksum differs" in line or "does not fit" in line


def test_any_flipped_bit_of_a_result_is_named(copy):
    """Of 300 random ones, every one; a letter of an exponent that changes case says the same number."""
    path, chance = next(Path("results/spectral").glob("*.json")), random.Random(7)
    whole = path.read_bytes()
    kept = store.load(path)
    for _ in range(300):
        at = chance.randrange(len(whole) * 8)
        flipped = bytearray(whole)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        with pytest.raises(BadInput, match=path.stem):
            assert store.load(path) != kept


def test_an_edited_field_does_not_keep_its_address(copy):
    path = next(Path("results/ditto").glob("*.json"))
    record = json.loads(path.read_text())
    record["experiment"]["lr"] = 0.2
    path.write_text(json.dumps(sealed(record)))  # by someone who knows how to seal
    assert "has the address" in one_line(call("show", path.stem))
    path.write_text(json.dumps(sealed(json.loads(path.read_text()) | {"address": "0" * 16})))
    with pytest.raises(BadInput, match="has the address"):
        store.load(path)


def test_a_new_result_cannot_pass_for_an_old_one(copy):
    path = next(Path("results/ditto").glob("*.json"))
    record = json.loads(path.read_text())
    del record["seal"]
    path.write_text(json.dumps(record))
    assert "its checksum differs" in one_line(call("show", path.stem))


def mutate(value, chance):
    """``value`` with one thing in it gone, doubled or replaced by something of another kind."""
    while isinstance(value, dict | list) and value:
        key = chance.choice(sorted(value) if isinstance(value, dict) else range(len(value)))
        if isinstance(value[key], dict | list) and value[key] and chance.random() < 0.8:
            value = value[key]
            continue
        what = chance.randrange(4)
        if what == 0:
            del value[key]
        else:
            strange = [None, -1, 10**30, 1.5, True, "x", "[red]", "\x1b[2J", [], {}, [[]], {"a": []}, 2**70 * 1.0]
            value[key] = chance.choice(strange)
        return


@pytest.mark.parametrize("command", ["show", "timeline", "figure", "trace", "claims"])
def test_no_mutated_result_is_a_traceback(copy, command):
    """As a stranger may make one: not sealed, not whole, or sealed after it was changed."""
    Path("paper_figures/claims.yaml").write_text(CLAIM)
    path, chance = next(Path("results/fedavg").glob("*.json")), random.Random(command)
    whole = json.loads(path.read_text())
    for number in range(60):
        record = json.loads(json.dumps(whole))
        if number % 3 == 0:
            record = {name: value for name, value in record.items() if name != "seal"}
            record["provenance"] = {
                n: v for n, v in record["provenance"].items() if n not in ("seal", "code", "version")
            }
        mutate(record, chance)
        if number % 3 == 1 and isinstance(record.get("provenance"), dict):
            record = sealed(record)
        path.write_text(json.dumps(record))
        outcome = call(*COMMANDS[command](path.stem))
        assert outcome.exit_code in (0, 2), (record, outcome.exception)
        assert "\x1b[2J" not in outcome.output
        if outcome.exit_code == 2:
            one_line(outcome)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"runs": []}', '{"runs": [{}]}', '{"runs": 3}'])
def test_a_broken_manifest_is_one_line(copy, text):
    Path("paper_figures/one/out/tiny/runs.json").write_text(text)
    for command in ("figure", "trace"):
        assert "runs.json" in one_line(call(*COMMANDS[command]("")))


def test_text_of_others_is_no_markup_and_moves_no_cursor(copy):
    path = next(Path("results/fedavg").glob("*.json"))
    record = json.loads(path.read_text())
    record["provenance"]["device"] = "[bold]cpu[/nothing] :smile: \x1b[2J\x1b[1;1Hmine"
    path.write_text(json.dumps(sealed(record)))
    shown = call("show", path.stem)
    assert shown.exit_code == 0, shown.exception
    assert "[bold]cpu[/nothing] :smile:" in " ".join(shown.stdout.split())
    assert "\x1b" not in shown.stdout
    shutil.move("results", "re[/red]sults")
    assert "re[/red]sults" in call("show", path.stem, "--results", "re[/red]sults").stdout.replace("\n", "")
    assert call("timeline", path.stem, "--results", "re[/red]sults").exit_code == 0
