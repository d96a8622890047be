"""Defects of released code that no law of a method can see: in what is counted, stored, drawn and reported.

``mutations.py`` puts each of them back, and each makes one of these tests, or a law, fail.
"""

import json
from itertools import product

import numpy as np
import pytest
import torch
from worlds import played, tiny, world

import pflbench.baselines.fedrep
from pflbench.baselines.ditto import Ditto
from pflbench.baselines.fedavg import FedAvg
from pflbench.baselines.fedrep import FedRep
from pflbench.core import measures
from pflbench.core.errors import BadInput
from pflbench.engine import engine, evaluation
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.run import run
from pflbench.laws.subject import models
from pflbench.report import finished
from pflbench.study import workload

SMALL = {"clients": 5, "rounds": 3, "epochs": 1, "participation": 0.6}


def learned(method, folder, **changes):
    experiment = Experiment.of({**SMALL, "method": method, **changes})
    return run(experiment, Machine(device="cpu", results=folder)).record


@pytest.mark.parametrize("way", ["loop", "vmap"])
def test_every_client_is_counted(way):
    """Local accuracy is of all clients, sampled or not, however many are evaluated at a time."""
    made = world(Ditto(), engine=way, chunk=2, validation=True)
    federation = played(made)
    scores = evaluation.evaluate(made, federation, 2)
    for counts, parts, pixels in (
        (scores.personal, made.test, made.official),
        (scores.personal_validation, made.validation, made.pixels),
    ):
        assert len(counts) == made.clients
        for model, part, count in zip(models(made, federation), parts, counts, strict=True):
            index = torch.as_tensor(part)
            right = made.network.predict(model, pixels.images(index)) == pixels.y[index]
            assert count == int(right.sum())


def test_local_accuracy_is_over_all_clients():
    """Correct predictions of all clients over all their test samples: (1 + 0 + 6) / (2 + 4 + 8), then (2 + 4 + 0) / 14."""
    record = {"curve": {"personal": [[1, 0, 6], [2, 4, 0]]}, "clients": {"test": [2, 4, 8]}}
    assert measures.local_curve(record, "personal").tolist() == [7 / 14, 6 / 14]


def test_the_last_round_is_reported_not_the_best():
    summary = measures.summary(np.array([0.5, 0.9, 0.7]))
    assert summary == {"last": 0.7, "last10": pytest.approx(0.7)}


def test_dittos_accuracies_are_kept_apart(tmp_path):
    """What a record says of Ditto's generic model is what it says of FedAvg's; lam = 0: of the others, local training's."""
    ditto = learned("ditto:lam=0", tmp_path)["curve"]
    fedavg, alone = (learned(name, tmp_path)["curve"] for name in ("fedavg", "local_only"))
    assert ditto["rounds"] == [1, 2, 3]
    assert len(ditto["generic"]) == len(ditto["personal"]) == 3
    assert ditto["generic"] == fedavg["generic"]
    assert ditto["official"] == fedavg["official"]
    assert ditto["personal"] == alone["personal"]
    assert ditto["generic"] != ditto["personal"]


@pytest.mark.parametrize("average_head", [False, True])
def test_an_unseen_client_of_fedrep_deploys_its_first_head(average_head):
    made = world(FedRep(average_head=average_head), cohort_size=2)
    federation = played(made, 1)
    cohort, first = engine.cohort_of(made, 0), made.task.start
    for client, model in enumerate(models(made, federation)):
        same = [torch.equal(model[name], first[name]) for name in made.task.head]
        assert all(same) == (client not in cohort)
        assert not torch.equal(model["body.0.weight"], first["body.0.weight"])  # the body is the aggregate


def test_the_half_of_fedrep_that_does_not_train_keeps_its_bits(monkeypatch):
    """Neither momentum nor weight decay moves it, though it meets both when it is its turn."""
    halves, sgd = [], pflbench.baselines.fedrep.sgd

    def spy(loss, p, feed, task, *, names):
        after = sgd(loss, p, feed, task, names=names)
        halves.append({name: torch.equal(p[name], after[name]) == (name not in names) for name in task.parameters})
        return after

    monkeypatch.setattr(pflbench.baselines.fedrep, "sgd", spy)
    played(world(FedRep(head_epochs=2), momentum=0.9, weight_decay=0.1), 2)
    assert len(halves) == 2 * 2 * 4  # rounds, halves, clients
    assert all(all(half.values()) for half in halves)


def test_batch_statistics_are_averaged_with_the_weights_of_the_uploads():
    made = world(FedAvg(), model=lambda: tiny(norm=True), cohort_size=2)
    after, _ = engine.play(made, engine.start(made), 0)
    cohort = engine.cohort_of(made, 0)
    own = [
        engine.stage(made, "contribute", made.method.contribute, made.task.start, {}, np.array([client]), 0, 2)[0]
        for client in cohort
    ]
    share = made.weight[cohort] / made.weight[cohort].sum()
    for name in ("body.1.running_mean", "body.1.running_var"):
        mean = sum(part * upload[name][0] for part, upload in zip(share, own, strict=True))
        torch.testing.assert_close(after.w[name], mean, rtol=1e-12, atol=0)
        assert not torch.equal(own[0][name], own[1][name])


def test_no_two_seeds_clients_rounds_or_stages_share_batches():
    """40 samples have more orders than could meet by chance: every stream gives another one."""
    orders = set()
    streams = list(product((11, 12, 13), range(3), range(3), ("contribute", "personalise")))
    for seed, client, round, stage in streams:
        made = world(FedAvg(), sizes=(40, 40, 40), seed=seed)
        place = {int(index): n for n, index in enumerate(made.train[client])}
        orders.add(tuple(place[int(index)] for index in engine._draw(made, client, round, stage, 1)[0]))
    assert len(orders) == len(streams)


def test_a_figure_is_not_drawn_without_one_of_its_runs(tmp_path):
    """Two seeds are asked for; the second one's result is not there, then it is."""
    results, root = tmp_path / "results", tmp_path / "figures"
    (root / "one").mkdir(parents=True)
    scale = {"about": "", "seeds": 2, "base": SMALL, "settings": {"digits": {"title": "Digits"}}}
    (root / "scales.yaml").write_text(json.dumps({"smoke": scale}))
    asked = {"title": "", "category": "", "caption": "", "rows": {"Local": {"method": "local_only"}}}
    (root / "one" / "grid.yaml").write_text(json.dumps(asked))
    plan = workload.Workload.of("smoke", root=root)
    plan.write(root)
    first, second = (needed.experiment for needed in plan.needed)
    run(first, Machine(device="cpu", results=results))
    with pytest.raises(BadInput, match="this run is missing"):
        finished.load("one", "smoke", results, root)
    run(second, Machine(device="cpu", results=results))
    assert len(finished.load("one", "smoke", results, root).runs) == 2
