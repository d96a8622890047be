"""What the tests share: one thread a computation, as ``pflbench.experiment.run`` sets it, and a small finished study."""

import shutil

import pytest
import torch
from studies import ONE, TWO, folder

from pflbench.experiment.machine import Machine
from pflbench.study import runs
from pflbench.study.workload import Workload

torch.set_num_threads(1)  # must be called, even where it is 1 already: MKL takes another path before the first call


@pytest.fixture
def root(tmp_path):
    return folder(tmp_path / "paper_figures", one=ONE, two=TWO)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished tiny study: its paper_figures and its results."""
    here = tmp_path_factory.mktemp("finished")
    folder(here / "paper_figures", one=ONE, two=TWO)
    plan = Workload.of("tiny", root=here / "paper_figures")
    plan.write(here / "paper_figures")
    assert runs.work(plan.needed, Machine(device="cpu", results=here / "results")) == []
    return here


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """A copy of it as the working directory."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"
