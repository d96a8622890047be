"""The command line: what must work exactly, and bad input: one clear line, exit code 2, nothing written."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pflbench.cli import main

FAST = ["--clients", "5", "--rounds", "2", "--epochs", "1"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PFLBENCH_DATA", raising=False)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def last_line(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_json_is_the_last_line(here):
    summary = last_line(call("run", "--method", "spectral", *FAST, "--json"))
    assert set(summary) == {"address", "path", "rounds", "generic", "personal", "seconds", "cached", "diverged"}
    assert summary["rounds"] == 2
    assert not summary["cached"]
    assert summary["diverged"] is None
    for which in ("generic", "personal"):
        assert set(summary[which]) == {"last", "last10"}
        assert 0 < summary[which]["last"] <= 1
    assert Path(summary["path"]).is_file()
    again = last_line(call("run", "--method", "spectral", *FAST, "--json"))
    assert again == {**summary, "cached": True}


def test_models_a_method_does_not_have_are_null(here):
    assert last_line(call("run", "--method", "fedavg", *FAST, "--json"))["personal"] is None
    assert last_line(call("run", "--method", "local_only", *FAST, "--json"))["generic"] is None


def test_cache_hit_is_said(here):
    first, second = (call("run", "--method", "fedavg", *FAST) for _ in range(2))
    assert "took" in first.stdout
    assert "cache hit" in second.stdout


def test_checkpoints_are_as_far_apart_as_asked(here, monkeypatch):
    from pflbench.experiment import run

    asked = []
    monkeypatch.setattr(run, "run", lambda experiment, machine, watch: asked.append(machine.checkpoint_s))
    call("run", "--method", "fedavg", "--checkpoint-s", "0")
    call("run", "--method", "fedavg")
    assert asked == [0.0, 30.0]
    assert call("run", "--method", "fedavg", "--checkpoint-s", "-1").exit_code == 2


def test_set_and_results_and_engine(here):
    arguments = [
        "--method",
        "spectral",
        "--set",
        "tau=0.4",
        "--set",
        "lam_p=1.0",
        "--engine",
        "loop",
        "--results",
        here / "other",
    ]
    summary = last_line(call("run", *arguments, *FAST, "--json"))
    record = json.loads(Path(summary["path"]).read_text())
    assert record["experiment"]["method"]["fields"]["tau"] == 0.4
    assert record["provenance"]["engine"] == "loop"
    assert Path(summary["path"]).parent == here / "other" / "spectral"


def test_config_file_and_flags_over_it(here):
    (here / "e.yaml").write_text(
        "method: {name: spectral, tau: 0.5}\nclients: 5\nrounds: 2\nepochs: 1\npartition: shards:k=3\n"
    )
    record = json.loads(Path(last_line(call("run", "--config", "e.yaml", "--seed", "4", "--json"))["path"]).read_text())
    assert record["experiment"]["method"]["fields"]["tau"] == 0.5
    assert record["experiment"]["partition"]["fields"] == {"k": 3}
    assert record["experiment"]["seed"] == 4


@pytest.mark.parametrize("kind", ["methods", "datasets", "partitions", "models", "schedules"])
def test_list(here, kind):
    result = call("list", kind)
    assert result.exit_code == 0
    expected = {
        "methods": "spectral",
        "datasets": "fashion_mnist",
        "partitions": "alpha=0.1",
        "models": "mlp",
        "schedules": "cosine",
    }
    assert expected[kind] in result.stdout


def test_list_one_shows_fields_and_sources(here):
    result = call("list", "methods", "spectral")
    assert "tau" in result.stdout
    assert "2401.17124" in result.stdout


def test_show_takes_a_short_address(here):
    summary = last_line(call("run", "--method", "fedavg", *FAST, "--json"))
    shown = call("show", summary["address"][:6])
    assert shown.exit_code == 0
    assert summary["address"] in shown.stdout
    assert json.loads(call("show", summary["address"], "--json").stdout)["address"] == summary["address"]


def test_partition_round_trip_gives_the_same_numbers(here):
    assert call("partition", "export", "--clients", "5", "s.npz").exit_code == 0
    assert "intact" in call("partition", "import", "s.npz").stdout
    drawn = last_line(call("run", "--method", "fedavg", *FAST, "--json"))
    filed = last_line(call("run", "--method", "fedavg", *FAST, "--partition", "file:path=s.npz", "--json"))
    assert drawn["generic"] == filed["generic"]
    assert drawn["address"] != filed["address"]


def test_partition_show_and_plot(here):
    assert "label distance" in call("partition", "show", "--clients", "5").stdout
    assert call("partition", "plot", "--clients", "5", "p.png").exit_code == 0
    assert (here / "p.png").stat().st_size > 1000


def test_a_plug_in_file_is_a_method(here):
    source = (Path(__file__).parents[2] / "baselines" / "fedavg.py").read_text()
    (here / "mine.py").write_text(source)
    summary = last_line(call("run", "--method", "./mine.py", *FAST, "--json"))
    assert Path(summary["path"]).parent.name == "mine"
    assert summary["generic"] == last_line(call("run", "--method", "fedavg", *FAST, "--json"))["generic"]


BAD = [
    (["run"], r"method = missing"),
    (["run", "--method", "fedavgg"], r"method = fedavgg: .*did you mean fedavg"),
    (["run", "--method", "./none.py"], r"method = none.py: no such file"),
    (["run", "--method", "fedavg", "--dataset", "mnist"], r"dataset = mnist: choose from .*digits"),
    (["run", "--method", "spectral", "--set", "tu=1"], r"tu = 1: unknown field.*tau"),
    (["run", "--method", "spectral", "--set", "tau=2"], r"tau = 2: .*less than or equal to 1"),
    (["run", "--method", "spectral", "--set", "tau=nan"], r"tau = nan"),
    (["run", "--method", "spectral", "--set", "tau"], r"set = tau: write --set field=value"),
    (["run", "--method", "spectral", "--set", "keep=lows"], r"keep = lows: .*'low'"),
    (["run", "--method", "fedavg", "--partition", "dirichlett"], r"partition = dirichlett: .*dirichlet"),
    (["run", "--method", "fedavg", "--partition", "dirichlet:alpha=0"], r"alpha = 0: .*greater than 0"),
    (["run", "--method", "fedavg", "--partition", "dirichlet:alpha=-1"], r"alpha = -1: .*greater than 0"),
    (["run", "--method", "fedavg", "--partition", "dirichlet:beta=1"], r"beta = 1: unknown field.*alpha"),
    (["run", "--method", "fedavg", "--partition", "dirichlet:alpha"], r"NAME:field=value"),
    (["run", "--method", "fedavg", "--partition", "file:path=none.npz"], r"none.npz"),
    (["run", "--method", "fedavg", "--partition", "file"], r"partition file"),
    (["run", "--method", "fedavg", "--clients", "2000"], r"clients = 2000: at most 1437"),
    (["run", "--method", "fedavg", "--clients", "0"], r"clients = 0"),
    (["run", "--method", "fedavg", "--participation", "1.5"], r"participation = 1.5"),
    (["run", "--method", "fedavg", "--lr", "inf"], r"lr = inf"),
    (["run", "--method", "fedavg", "--rounds", "2.5"], r"rounds = 2.5"),
    (["run", "--method", "fedavg", "--model", "vgg"], r"model = vgg: choose from"),
    (["run", "--method", "fedavg", "--model", "cnn"], r"model = cnn: needs images of 16x16"),
    (["run", "--method", "fedavg", "--schedule", "cosine:final=2"], r"final = 2"),
    (["run", "--method", "fedavg", "--precision", "float8"], r"precision = float8"),
    (["run", "--method", "fedavg", "--device", "tpu"], r"device = tpu: must be auto, cpu"),
    (["run", "--method", "fedavg", "--dataset", "fashion_mnist", "--data-root", "nowhere"], r"nowhere"),
    (["run", "--method", "fedavg", "--config", "none.yaml"], r"config = none.yaml"),
    (["show", "123456"], r"address = 123456: no such result"),
    (["partition", "export", "a.csv"], r"path = a.csv: must end in .npz"),
    (["partition", "import", "none.npz"], r"none.npz"),
    (["partition", "plot", "a.bmp"], r"a.bmp"),
    (["prepare", "digits"], r"data_root = missing"),
    (["list", "methods", "sgd"], r"method = sgd: choose from"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_bad_input(here, arguments, message):
    result = call(*arguments)
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 2, result.output
    assert len(lines) == 1, lines
    assert lines[0].startswith("pflbench: ")
    import re

    assert re.search(message, lines[0]), lines[0]
    assert not list(here.iterdir())


def test_unwritable_results(here):
    (here / "file").touch()
    result = call("run", "--method", "fedavg", *FAST, "--results", here / "file" / "deeper")
    assert result.exit_code == 2
    assert "must be a folder that can be written to" in result.stderr


def test_config_that_is_not_a_mapping(here):
    for text, message in (("- a", "field: value"), ("a: [", "not YAML"), ("methd: fedavg", "did you mean method")):
        (here / "e.yaml").write_text(text)
        result = call("run", "--config", "e.yaml")
        assert result.exit_code == 2
        assert message in result.stderr


def test_help_names_every_field():
    from pflbench.experiment.experiment import Experiment

    text = call("run", "--help").stdout
    for name in Experiment.model_fields:
        assert f"--{name.replace('_', '-')}" in text
