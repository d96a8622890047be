"""Where data and client states lie changes no bit, and a run that was interrupted goes on wherever they are."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import played, world

from pflbench.baselines import METHODS
from pflbench.core import tree
from pflbench.core.errors import BadInput
from pflbench.engine import engine, evaluation
from pflbench.engine.placement import _mapped, activations, bank_at
from pflbench.engine.task import Pixels
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.run import run
from pflbench.models import zoo
from pflbench.models.zoo import MODELS


def method(name):
    return METHODS.get(name)()


def same_bits(one, other):
    left, right = tree.flatten(tuple(one)), tree.flatten(tuple(other))
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Again:
    """A recorder that calls the function again: what reads anything but the fixed memory goes wrong."""

    def warm(self, function):
        return function()

    def capture(self, function):
        return function


@pytest.mark.parametrize("way", ["loop", "vmap"])
@pytest.mark.parametrize("name", METHODS.names())
def test_placement_changes_no_bit(tmp_path, name, way):
    """States on the host or in a file, data apart with and without augmentation: models and scores."""
    for augment in ("none", "crop_flip"):
        plain = world(method(name), engine=way, augment=augment, validation=True)
        state = played(plain)
        scores = evaluation.evaluate(plain, tree_copy(state), 2)
        for place in ("host", "file"):
            apart = {side: replace(getattr(plain, side), apart=True) for side in ("pixels", "official")}
            made = replace(plain, bank=bank_at(place, tmp_path), **apart)
            other = played(made)
            assert same_bits(state, other)
            assert evaluation.evaluate(made, other, 2) == scores
    assert list(tmp_path.iterdir()) == []


def tree_copy(federation):
    return engine.Federation(tree.clone(federation.w), tree.clone(federation.c))


@pytest.mark.parametrize("sizes", [(7, 23, 4, 12, 1, 16), (60, 190, 130)])
@pytest.mark.parametrize("name", ["fedavg", "ditto", "fedrep"])
def test_captured_stages_read_the_images_of_their_round(name, sizes):
    """Whole stages captured once, and single steps: the images that a round brings over are not those of the capture."""
    plain = world(method(name), engine="vmap", sizes=sizes, cohort_size=2, epochs=1, recorder=Again())
    made = replace(plain, pixels=replace(plain.pixels, apart=True), captured={})
    assert same_bits(played(plain, 4), played(made, 4))
    assert plain.captured.keys() == made.captured.keys()


def test_near_brings_only_what_is_asked_for():
    pixels = replace(world(method("fedavg")).pixels, apart=True)
    index = torch.tensor([[5, 9, 5], [9, 2, 2]])
    near, where = pixels.near(index)
    assert len(near.x) == 3
    assert near.apart
    near = near.landed()
    assert not near.apart
    assert torch.equal(near.images(where.flatten()), pixels.images(index.flatten()))
    assert torch.equal(near.y[where], pixels.y[index])
    padded, again = pixels.near(index, 10)
    assert len(padded.x) == 10
    assert torch.equal(where, again)


def test_the_next_images_are_gathered_while_a_group_computes(monkeypatch):
    """Each group waits until the one after it has been gathered: in turn, one by one, it would wait for ever."""
    plain = world(method("fedavg"), engine="loop", cohort_size=4)
    made = replace(plain, pixels=replace(plain.pixels, apart=True))
    began, near, landed = [threading.Event() for _ in range(4)], Pixels.near, Pixels.landed
    gathered, computed = iter(began), iter(range(1, 5))
    monkeypatch.setattr(Pixels, "near", lambda *given: (next(gathered).set(), near(*given))[1])
    waited = []

    def land(pixels):
        number = next(computed)
        waited.append(number == 4 or began[number].wait(10))
        return landed(pixels)

    monkeypatch.setattr(Pixels, "landed", land)
    w, c = engine.start(made)
    engine.stage(made, "contribute", made.method.contribute, w, c, np.arange(4), 0, 1)
    assert waited == [True] * 4


def test_a_mapped_bank_is_no_memory_of_the_process(tmp_path):
    """200 MB of states: the pages belong to a file, and the file has no name that could be left behind."""
    made = bank_at("file", tmp_path)({"v": torch.ones(50, 1000)}, 1000)
    assert made["v"].shape == (1000, 50, 1000)
    assert float(made["v"][::100].sum()) == 10 * 50_000
    assert ".states." in Path("/proc/self/maps").read_text()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadInput, match=r"^results = .*: has no room for client states"):
        _mapped(2**50, torch.float32, tmp_path)


def test_activations_by_hand():
    """cnn_small on 8x8, width 8: two convolutions, ReLUs and poolings, flattened, hidden layer, ReLU, head."""
    module = zoo.build(MODELS.choose("cnn_small", {"width": 8}), (1, 8, 8), 10, 0).module
    expected = 2 * 8 * 64 + 8 * 16 + 2 * 16 * 16 + 16 * 4 + 16 * 4 + 64 + 64 + 10
    assert activations(module, torch.zeros(1, 8, 8, dtype=torch.uint8)) == expected


@pytest.mark.parametrize("place", ["host", "file"])
def test_a_run_elsewhere_gives_the_same_record_and_resumes(tmp_path, place):
    asked = Experiment.of({"method": "ditto", "model": "mlp:hidden=4", "clients": 4, "rounds": 3, "epochs": 1})
    whole = run(asked, Machine(results=tmp_path / "whole")).record

    class Stop(Exception):
        pass

    def stop(now):
        if now.round == 2:
            raise Stop

    elsewhere = Machine(results=tmp_path / "other", place_data="host", place_clients=place, checkpoint_s=0.0)
    with pytest.raises(Stop):
        run(asked, elsewhere, stop)
    record = run(asked, elsewhere).record
    assert {name: record[name] for name in whole if name != "provenance"} == {
        name: whole[name] for name in whole if name != "provenance"
    }
    assert any(line.startswith("client states: ") and line.endswith(place) for line in record["provenance"]["memory"])


def test_an_evaluation_holds_few_models_in_the_loop(monkeypatch):
    """Client states elsewhere are of no use if an evaluation brings them all over: never more than the plan counts."""
    made = world(method("ditto"), engine="loop", sizes=(5,) * 30, cohort_size=2)
    held, rows = [], tree.rows

    def watched(bank, index):
        held.append(len(index))
        return rows(bank, index)

    monkeypatch.setattr(tree, "rows", watched)
    scores = evaluation.evaluate(made, engine.start(made), 0)
    assert max(held) == made.block == 4
    assert scores == evaluation.evaluate(replace(made, threads=3), engine.start(made), 0)
    assert replace(made, engine="vmap").block == 30
