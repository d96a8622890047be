"""Experiments on prepared data: what identifies them, users as clients, augmentation and weights from a file."""

import hashlib
from pathlib import Path

import numpy as np
import official
import pytest
import torch
from click.testing import CliRunner

from pflbench.cli import main
from pflbench.core.errors import BadInput
from pflbench.core.fields import canonical
from pflbench.core.streams import stream
from pflbench.data import datasets, partitions
from pflbench.data.datasets import DATASETS
from pflbench.data.partitions import PARTITIONS
from pflbench.experiment.build import build
from pflbench.experiment.experiment import MEANING, Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.experiment.run import run
from pflbench.models import zoo
from pflbench.models.zoo import MODELS

FEMNIST = "hf:flwrlabs/femnist,size=28,colour=grey"


def experiment(**fields):
    small = {"method": "fedavg", "model": "mlp:hidden=4", "clients": 3, "rounds": 1, "epochs": 1}
    return Experiment.of({**small, **fields})


@pytest.fixture
def root(tmp_path):
    """A data root with 5 writers, one of whom has written one character only, and one very little."""
    import datasets as hub

    hub.disable_progress_bars()

    def change(columns):
        columns["writer_id"] = [f"f{min(i % 5, 4)}" for i in range(60)]
        columns["writer_id"] = ["f4" if w == "f3" and i > 20 else w for i, w in enumerate(columns["writer_id"])]
        columns["character"] = [
            0 if w == "f0" else c for w, c in zip(columns["writer_id"], columns["character"], strict=True)
        ]
        return columns

    official.femnist(tmp_path, count=60, change=change)
    name, fields = DATASETS.parse(FEMNIST)
    datasets.prepare(name, tmp_path, fields)
    return tmp_path


def natural(samples, clients, *, seed=0, **fields):
    users = samples.train_users.numpy()
    labels = samples.train_y.numpy()
    return partitions.partition(labels, clients, PARTITIONS.choose("natural", fields), stream(seed, "partition"), users)


def test_clients_are_users(root):
    """All samples of one user each; tests are the same user's; who takes part is drawn."""
    samples = datasets.load(*DATASETS.parse(FEMNIST)[:1], root, DATASETS.parse(FEMNIST)[1])
    users, test_users = samples.train_users.numpy(), samples.test_users.numpy()
    sizes = np.bincount(users)
    parts = natural(samples, 3, minimum=8)
    assert [sorted(set(users[part])) for part in parts] == [[1], [2], [4]]  # 0: one class; 3: too few samples
    assert [len(part) for part in parts] == [sizes[1], sizes[2], sizes[4]]
    for part, test in zip(parts, partitions.user_tests(parts, users, test_users), strict=True):
        assert set(test_users[test]) == set(users[part])
        assert len(test) == (test_users == users[part[0]]).sum() > 0
    drawn = {tuple(users[part[0]] for part in natural(samples, 2, seed=seed, minimum=8)) for seed in range(30)}
    assert drawn == {(1, 2), (1, 4), (2, 4)}


def test_too_few_users_are_refused_and_the_reason_is_told(root):
    samples = datasets.load("hf", root, DATASETS.parse(FEMNIST)[1])
    with pytest.raises(
        BadInput, match=r"^clients = 4: at most 3: of 5 users 1 have fewer than 8 samples, 1 fewer than 2 c"
    ):
        natural(samples, 4, minimum=8)
    assert len(natural(samples, 5, minimum=1, classes=1)) == 5
    with pytest.raises(BadInput, match=r"^partition = natural: needs a data set with users"):
        partitions.partition(samples.train_y.numpy(), 2, PARTITIONS.choose("natural"), stream(0), None)
    parts = natural(samples, 3, minimum=8)
    with pytest.raises(BadInput, match=r"^partition = client 1: its user has no test images"):
        partitions.user_tests(parts, samples.train_users.numpy(), np.array([1, 4, 4, -1]))


def test_the_column_must_be_the_one_prepared(root, tmp_path):
    machine = Machine(data_root=root, results=tmp_path / "results")
    for column, message in (("", None), ("writer_id", None), ("hsf_id", "has users of writer_id; prepare user=hsf_id")):
        asked = experiment(dataset=FEMNIST, partition=f"natural:minimum=8{f',column={column}' if column else ''}")
        if message is None:
            world, _ = build(resolve(asked, root), machine, torch.device("cpu"))
            assert len(world.train) == 3
        else:
            with pytest.raises(BadInput, match=rf"^partition.column = {column}: .*{message}"):
                build(resolve(asked, root), machine, torch.device("cpu"))


def test_femnist_from_the_command_line(root, tmp_path):
    """The spelling that the documentation gives; the second time the result is there."""
    arguments = [
        *("run", "--method", "ditto", "--dataset", FEMNIST, "--partition", "natural:column=writer_id,minimum=8"),
        *("--clients", "3", "--rounds", "1", "--epochs", "1", "--model", "mlp:hidden=4", "--data-root", str(root)),
        *("--results", str(tmp_path / "results"), "--json"),
    ]
    for cached in ("false", "true"):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        assert f'"cached": {cached}' in done.output


def test_a_data_set_s_content_is_in_the_address_and_its_place_is_not(root, tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("one", "same", "other"):
        rng = np.random.default_rng(folder == "other")
        for number in range(12):
            official.photo(tmp_path / folder / ("cat", "dog")[number % 2] / f"{number}.jpg", rng)
        datasets.prepare("folder", tmp_path, {"path": folder, "size": "8"})
    found = [resolve(experiment(dataset=f"folder:{folder},size=8"), tmp_path) for folder in ("one", "same", "other")]
    assert found[0].address == found[1].address != found[2].address
    assert found[0].experiment.dataset.digest == datasets.digest("folder", {"path": "one", "size": 8}, tmp_path)
    again = Experiment.of(found[0].experiment.model_dump())  # as a result has it
    assert resolve(again).address == resolve(again, tmp_path).address == found[0].address  # a plan without the data
    moved = again.model_copy(
        update={"dataset": again.dataset.model_copy(update={"fields": {"path": "other", "size": 8}})}
    )
    with pytest.raises(BadInput, match=r"^folder = .*: other files than those of the experiment"):
        resolve(moved, tmp_path)
    with pytest.raises(BadInput, match=r"^data_root = missing: .*prepare folder:path=one,size=8"):
        resolve(experiment(dataset="folder:one,size=8"))


def test_results_from_before_these_fields_keep_their_addresses():
    plain = resolve(experiment())
    before = plain.experiment.model_dump()
    assert before["dataset"] == "digits"
    del before["augment"], before["cut"]
    text = canonical({"meaning": MEANING, "experiment": before})
    assert plain.address == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert plain.address == resolve(experiment(augment="none", dataset="digits")).address
    assert plain.address != resolve(experiment(augment="crop_flip")).address


def test_augmentation_is_a_field_of_the_experiment(tmp_path):
    prints = []
    for augment in ("none", "crop_flip", "crop_flip"):
        folder = tmp_path / str(len(prints))
        outcome = run(experiment(augment=augment), Machine(results=folder))
        prints.append(outcome.record["fingerprint"])
    assert prints[0] != prints[1] == prints[2]


def test_weights_from_a_file_are_in_the_address_by_content(tmp_path):
    torch.manual_seed(0)
    module = zoo.build(MODELS.choose("resnet18", {"width": 8}), (1, 8, 8), 10, 3).module
    for name, change in (("one", 0.0), ("same", 0.0), ("other", 0.1)):
        module.fc.bias.data.add_(change)
        torch.save(dict(module.state_dict()), tmp_path / f"{name}.pth")
    plain = resolve(experiment(model="resnet18:width=8"))
    found = [
        resolve(experiment(model=f"resnet18:width=8,pretrained={tmp_path / name}.pth"))
        for name in ("one", "same", "other")
    ]
    assert plain.experiment.model.digest is None
    assert len(found[0].experiment.model.digest) == 16
    assert found[0].address == found[1].address
    assert len({plain.address, found[0].address, found[2].address}) == 3
    world, _ = build(found[2], Machine(), torch.device("cpu"))
    assert torch.equal(world.task.start["fc.bias"], module.fc.bias.detach())
    with pytest.raises(BadInput, match=r"^model.pretrained = absent.pth: cannot be read \(FileNotFoundError"):
        resolve(experiment(model="resnet18:pretrained=absent.pth"))


def test_batch_statistics_keep_their_precision_under_bfloat16(tmp_path):
    outcome = run(
        experiment(model="cnn_small:width=8,norm=batch", precision="bfloat16", rounds=2),
        Machine(results=tmp_path, keep_models=True),
    )
    from safetensors.torch import load_file

    held = load_file(Path(outcome.path).with_suffix(".safetensors"))
    assert {str(value.dtype) for name, value in held.items() if "running" in name} == {"torch.float32"}
