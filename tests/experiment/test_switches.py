"""A run leaves the process as it was, pads to the longest client, and says what cannot be built before it tries."""

import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from pflbench.cli import main
from pflbench.core.errors import BadInput
from pflbench.experiment.build import build, pick_device
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.experiment.run import run

SMALL = {"method": "fedavg", "clients": 4, "rounds": 1, "epochs": 1}


def state():
    cudnn = torch.backends.cudnn
    return (
        torch.get_num_threads(),
        torch.get_deterministic_debug_mode(),
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.allow_tf32,
        (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32),
    )


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_torch_s_switches_are_as_they_were(tmp_path, precision):
    before = state()
    try:
        torch.set_num_threads(2)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = True
        mine = state()
        run(Experiment.of({**SMALL, "precision": precision}), Machine(device="cpu", results=tmp_path))
        assert state() == mine
        with pytest.raises(BadInput):
            run(Experiment.of({**SMALL, "clients": 1000}), Machine(device="cpu", results=tmp_path))
        assert state() == mine
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[2])
        torch.backends.cudnn.benchmark = before[4][1]


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_padding_ends_at_the_longest_client(tmp_path, augment):
    """A million samples a batch took 6.5 GB; it learns what the longest client's size as batch size learns."""
    asked = {**SMALL, "augment": augment}
    large = Experiment.of({**asked, "batch_size": 1_000_000})
    world, _ = build(resolve(large), Machine(device="cpu", results=tmp_path), torch.device("cpu"))
    longest = max(map(len, world.train))
    assert world.batch_size == longest
    same = run(Experiment.of({**asked, "batch_size": longest}), Machine(device="cpu", results=tmp_path)).record
    found = run(large, Machine(device="cpu", results=tmp_path)).record
    assert found["fingerprint"] == same["fingerprint"]
    assert found["costs"] == same["costs"]


@pytest.mark.parametrize("device", ["meta", "mps", "cuda:99", "xpu", "fpga"])
def test_a_device_that_computes_nothing_is_refused(device):
    with pytest.raises(BadInput, match=f"device = {device}: must be auto, cpu or a CUDA device"):
        pick_device(device)


@pytest.mark.parametrize(
    "model", ["mlp:hidden=1000000000000", "cnn:hidden=100000", "cnn_small:width=80000", "resnet18:width=8192"]
)
def test_absurd_widths_are_one_line(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(main, ["run", "--method", "fedavg", "--model", model])
    assert outcome.exit_code == 2
    (line,) = outcome.stderr.splitlines()
    assert "less than or equal to" in line
    assert not list(tmp_path.iterdir())


def test_the_home_folder_is_meant_by_its_sign(tmp_path, monkeypatch):
    """It made a folder of that name."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "home" / "mine.yaml").write_text("clients: 4\nrounds: 1\nepochs: 1\n")
    arguments = ["run", "--method", "fedavg", "--config", "~/mine.yaml", "--results", "~/results"]
    outcome = CliRunner().invoke(main, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert len(list((tmp_path / "home" / "results").rglob("*.json"))) == 1
    assert not list((tmp_path / "here").iterdir())
    assert Machine(results="~/r").results == tmp_path / "home" / "r"


def test_paths_too_long_and_devices_that_are_full_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (["show", "ab", "--results", 300 * "x"], ["run", "--method", "fedavg", "--results", 300 * "x"]):
        outcome = CliRunner().invoke(main, arguments)
        assert outcome.exit_code == 2, outcome.exception
        assert len(outcome.stderr.splitlines()) == 1
    command = [sys.executable, "-m", "pflbench.cli", "list", "fleets"]
    with open("/dev/full", "w") as full:
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.splitlines() == ["pflbench: No space left on device"]


def test_a_terminal_that_cannot_show_a_sign_shows_another(tmp_path):
    command = [sys.executable, "-m", "pflbench.cli", "list", "methods", "spectral"]
    found = subprocess.run(command, capture_output=True, env={"PYTHONIOENCODING": "ascii"}, check=False)
    assert found.returncode == 0, found.stderr
