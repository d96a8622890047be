"""Files of others are read strictly: one meaning or one line, whatever is in them."""

import json
import re
from itertools import pairwise

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import ROOT

from pflbench.cli import main
from pflbench.clock.fleet import load_fleet
from pflbench.core.errors import BadInput, printable
from pflbench.core.fields import check
from pflbench.core.reading import LARGEST_YAML, clean, read_json, read_yaml
from pflbench.experiment.experiment import Experiment
from pflbench.study import grid

COMMITTED = [*ROOT.glob("paper_figures/**/*.yaml"), *ROOT.glob("pflbench/clock/fleets/*.yaml")]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_is_committed_means_what_it_meant(path):
    assert read_yaml(path) == yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("1e-3", 0.001),
        ("-7", -7),
        ("'010'", "010"),
        ("2020-01-01", "2020-01-01"),
        ("1:30", "1:30"),
        ("~", None),
        ("", None),
        ("[1, {a: 2.5}]", [1, {"a": 2.5}]),
    ],
)
def test_words_and_numbers(tmp_path, text, value):
    (tmp_path / "a.yaml").write_text(f"key: {text}\n")
    found = read_yaml(tmp_path / "a.yaml")["key"]
    assert (found, type(found)) == (value, type(value))


ALIASES = "".join(f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in pairwise("abcdefg"))
BOMB = f"a: &a [{10 * '0,'}]\n{ALIASES}"
REFUSED = [
    ("lr: 0.1\nclients: 5\nlr: 0.2", "line 3: the key lr is there twice"),
    ("clients: 010", "line 1: 010 may be read in two ways"),
    ("clients: -0_1", "line 1: -0_1 may be read in two ways"),
    ("1: fedavg", "line 1: the key 1 is no text"),
    ("null: fedavg", "line 1: the key None is no text"),
    ("true: fedavg", "line 1: the key True is no text"),
    ("[a]: fedavg", "line 1: the key ['a'] is no text"),
    ("method: " + 5000 * "[", "line 1: more than 20 lists or mappings inside each other"),
    ("method: " + 25 * "{a: " + "1" + 25 * "}", "line 1: more than 20 lists or mappings inside each other"),
    ("method: &a [*a]", "line 1: more than 20 lists or mappings inside each other"),
    ("a: !!python/object/apply:os.system ['true']", "line 1: tags like tag:yaml.org,2002:python"),
    ("a: !!str 5", "line 1: tags like"),
    (BOMB, "more than 100000 values"),
    ("- fedavg", "must hold `field: value` lines"),
    ("", "must hold `field: value` lines"),
    ("a: [", "is not YAML"),
    ("a: \0", "is not YAML"),
    ("---\na: 1\n---\na: 2", "is not YAML"),
    ("#" * (LARGEST_YAML + 1), "has more than 1 MiB"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=lambda text: text[:30])
def test_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    outcome = CliRunner().invoke(main, ["run", "--config", str(tmp_path / "a.yaml")])
    assert outcome.exit_code == 2
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("pflbench: config = ")
    assert message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: yes", "lr = yes: "),
        ("lr: true", "lr = True: Value error, must be a number"),
        ("clients: true", "clients = True: "),
        ("clients: yes", "clients = yes: "),
        ("partition: {name: dirichlet, alpha: true}", "partition dirichlet.alpha = True: must be a number"),
        ("rounds: 1000000000000", "rounds = 1000000000000: "),
        ("lr: .inf", "lr = inf: "),
        ("lr:", "lr = None: "),
    ],
)
def test_no_silent_conversion(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(f"method: fedavg\n{text}\n")
    outcome = CliRunner().invoke(main, ["run", "--config", str(tmp_path / "a.yaml"), "--results", str(tmp_path / "r")])
    assert outcome.exit_code == 2
    (line,) = outcome.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "r").exists()


def test_one_reader_for_all_yaml(tmp_path):
    (tmp_path / "a.yaml").write_text("about: a\nabout: b\n")
    with pytest.raises(BadInput, match=r"fleet = .*the key about is there twice"):
        load_fleet(str(tmp_path / "a.yaml"))
    (tmp_path / "scales.yaml").write_text("tiny: {about: a, seeds: true, settings: {x: {title: X}}}\n")
    with pytest.raises(BadInput, match=r"scale tiny.seeds = True: .*must be a number"):
        grid.read_scale("tiny", tmp_path)


def test_a_truth_value_is_one_where_it_is_asked_for():
    assert check(bool, True, "a") is True
    with pytest.raises(BadInput):
        check(int, True, "a")


def test_no_cut_is_written_none():
    assert Experiment.of({"method": "fedavg", "cut": "none"}).cut is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="ab:[]{}&*!- \n01'\"#|>?", max_size=60))
def test_any_bytes_are_a_mapping_or_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        found = read_yaml(path)
    except BadInput as error:
        found = {str(error): len(str(error).splitlines())}
        assert list(found.values()) == [1]
    assert all(isinstance(key, str) for key in found)


def test_what_is_printed_moves_no_cursor():
    assert printable("a\x1b[2Jb\nc\x07\u202ed é") == "a[2Jb cd é"
    assert clean({"a\x1b": ["\x00b", {"c": 1.5}]}) == {"a": ["b", {"c": 1.5}]}
    line = str(BadInput("a\nb", "c\x1b[1m" + 500 * "x", "d"))
    assert re.fullmatch(r"a b = c\[1mx+\.\.\. \(504 characters\): d", line)


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": NaN}', '{"a": 1, "a": 2}', 100_000 * "[", '{"a": 1' + 5000 * "0" + "}"]
)
def test_json_is_read_as_strictly(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BadInput, match=r"is corrupt .*; mend it"):
        read_json(tmp_path / "a.json", "file", "mend it")
    (tmp_path / "a.json").write_text(json.dumps({"a": [1.5, "b"]}))
    assert read_json(tmp_path / "a.json", "file", "mend it") == {"a": [1.5, "b"]}
