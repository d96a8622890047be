"""The engine's laws: two ways of computing agree; neighbours, order, padding and threads change nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional
from worlds import SIZES, played, tiny, world

from pflbench.baselines import METHODS
from pflbench.core import tree
from pflbench.core.method import Method
from pflbench.engine import engine, evaluation, task
from pflbench.engine.captured import SHORTEST, WARM, WHOLE, StageGraph, fold_with
from pflbench.engine.engine import Federation
from pflbench.models.zoo import Model, cnn_small


def method(name: str) -> Method:
    return METHODS.get(name)()


def distance(one: Federation, other: Federation) -> float:
    gaps = tree.flatten(tree.each(lambda a, b: (a.double() - b.double()).abs().max(), tuple(one), tuple(other)))
    return max(float(gap) for gap in gaps.values())


def same_bits(one: Federation, other: Federation) -> bool:
    left, right = tree.flatten(tuple(one)), tree.flatten(tuple(other))
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", METHODS.names())
def test_loop_equals_vmap(name):
    loop, vmap = (played(world(method(name), engine=way)) for way in ("loop", "vmap"))
    assert distance(loop, vmap) < 1e-10
    assert not same_bits(loop, engine.start(world(method(name))))  # something was learned


@pytest.mark.parametrize("name", METHODS.names())
def test_evaluation_agrees(name):
    scores = []
    for way in ("loop", "vmap"):
        made = world(method(name), engine=way, validation=True)
        scores.append(evaluation.evaluate(made, played(made), 2))
    assert scores[0] == scores[1]


def test_evaluation_by_hand():
    """One client's counts, recomputed with a plain module."""
    made = world(method("local_only"), engine="vmap", validation=True)
    federation = played(made)
    scores = evaluation.evaluate(made, federation, 2)
    assert scores.official is None
    assert scores.generic is None
    for k in range(made.clients):
        with torch.random.fork_rng():
            module = tiny().module.double()
        module.load_state_dict({name: leaf[k] for name, leaf in federation.c.items()})
        for pixels, part, counted in (
            (made.official, made.test[k], scores.personal[k]),
            (made.pixels, made.validation[k], scores.personal_validation[k]),
        ):
            x = (pixels.x[part].double() / 255 - 0.5) / 0.5
            assert int((module(x).argmax(1) == pixels.y[part]).sum()) == counted


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunk_changes_nothing_beyond_rounding(chunk):
    whole, parts = (played(world(method("spectral"), engine="vmap", chunk=size)) for size in (64, chunk))
    assert distance(whole, parts) < 1e-12


@pytest.mark.parametrize("way", ["loop", "vmap"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_threads_change_no_bit(way, precision):
    made = world(method("spectral"), engine=way, precision=precision, chunk=2)
    assert same_bits(played(made), played(replace(made, threads=3)))


def test_channels_last_changes_only_rounding_and_no_layout(monkeypatch):
    """The layout of images on a CPU: the same model to rounding, bits without threads in them, weights as they were."""

    def coloured() -> Model:
        return cnn_small((3, 8, 8), 3)

    rng = np.random.default_rng(5)
    made = world(method("ditto"), engine="loop", precision="float32", model=coloured)
    images = torch.as_tensor(rng.integers(0, 256, (sum(SIZES), 3, 8, 8)), dtype=torch.uint8)
    made = replace(made, pixels=replace(made.pixels, x=images))
    seen, convolve = [], functional.conv2d

    def watched(x, *arguments):
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return convolve(x, *arguments)

    monkeypatch.setattr(functional, "conv2d", watched)
    fast = played(made)
    assert seen
    assert all(seen)
    assert same_bits(fast, played(replace(made, threads=3)))
    assert all(leaf.is_contiguous() for leaf in tree.flatten(tuple(fast)).values())
    monkeypatch.setattr(task, "is_alone", lambda: False)
    assert distance(fast, engine.start(made)) > 0
    assert distance(fast, played(made)) < 1e-4


def test_a_network_keeps_no_tensor_of_a_call():
    """Not of one that failed either; and it computes what the module itself does."""
    made = world(method("fedavg"))
    x, network, p = made.official.images(torch.arange(5)), made.network, made.task.start
    with torch.random.fork_rng():
        module = tiny().module.double()
    module.load_state_dict(p)
    assert torch.equal(network.logits(p, x), module(x))
    with pytest.raises(RuntimeError):
        network.logits(p, x[:, :, :2])
    assert all(leaf.is_meta for leaf in network._mine.module.state_dict().values())


def test_cohort_order_changes_nothing():
    made = world(method("spectral"), engine="vmap")
    federation = played(made, 1)
    cohort = np.array([0, 1, 3, 5])
    results = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        rows = tree.rows(federation.c, torch.as_tensor(cohort[order]))
        upload, _ = engine.stage(made, "contribute", made.method.contribute, federation.w, rows, cohort[order], 1, 2)
        results.append(tree.rows(upload, torch.as_tensor(np.argsort(order))))
    gaps = tree.flatten(tree.each(lambda a, b: (a - b).abs().max(), *results))
    assert max(gaps.values()) < 1e-12


@pytest.mark.parametrize("name", METHODS.names())
def test_pure_padding_changes_no_bit(name, monkeypatch):
    """Every feed padded to twice the longest client: masked steps leave every number as it was."""
    made = world(method(name), engine="loop")
    plain = played(made)
    feeds = engine._feeds

    def padded(*arguments):
        draws, awake = feeds(*arguments)
        more = {key: torch.cat([draw, torch.zeros_like(draw)], 2) for key, draw in draws.items()}
        return more, [row + [False] * len(row) for row in awake]

    monkeypatch.setattr(engine, "_feeds", padded)
    assert same_bits(plain, played(made))


def test_small_client_trains():
    """Clients with fewer samples than a batch, even one sample, make a step per epoch."""
    made = world(method("local_only"), cohort_size=len(SIZES))
    federation, cost = engine.play(made, engine.start(made), 0)
    for k, size in enumerate(SIZES):
        moved = (federation.c["head.weight"][k] - made.task.start["head.weight"]).abs().max()
        assert moved > 1e-6
        assert cost.personalise[k] == 2 * -(-size // 5)
    assert cost.contribute == [0] * len(SIZES)


def test_changing_the_aggregate_changes_the_next_training():
    made = world(method("spectral"))
    federation = played(made, 1)
    changed = Federation(tree.each(lambda leaf: leaf + 0.1, federation.w), tree.clone(federation.c))
    kept, other = (engine.play(made, Federation(f.w, tree.clone(f.c)), 1)[0] for f in (federation, changed))
    assert distance(kept, other) > 1e-3


@pytest.mark.parametrize("name", METHODS.names())
def test_states_are_values(name):
    """No two leaves of a federation share memory, and writing into w changes no c."""
    federation = played(world(method(name), cohort_size=len(SIZES)), 1)
    leaves = tree.flatten(tuple(federation))
    places = [leaf.untyped_storage().data_ptr() for leaf in leaves.values() if leaf.numel()]
    assert len(set(places)) == len(places)


def test_cohorts_and_batches_do_not_depend_on_the_method():
    one, other = world(method("fedavg")), world(method("local_only"))
    for round in range(5):
        assert np.array_equal(engine.cohort_of(one, round), engine.cohort_of(other, round))
        assert np.array_equal(
            engine._draw(one, 1, round, "contribute", 2), engine._draw(other, 1, round, "contribute", 2)
        )
    assert not np.array_equal(engine._draw(one, 1, 0, "contribute", 1), engine._draw(one, 1, 0, "personalise", 1))
    more = engine._draw(one, 1, 0, "contribute", 3)
    assert np.array_equal(more[:2], engine._draw(one, 1, 0, "contribute", 2))  # another budget, the same first epochs


def test_an_epoch_meets_every_sample_once():
    made = world(method("fedavg"))
    for row in engine._draw(made, 1, 4, "contribute", 3):
        assert np.array_equal(np.sort(row[row >= 0]), made.train[1])


def test_cohorts_are_uniform():
    made = world(method("fedavg"))
    counts = np.bincount(np.concatenate([engine.cohort_of(made, round) for round in range(3000)]), minlength=6)
    assert counts.sum() == 3000 * 4
    assert np.abs(counts / 2000 - 1).max() < 0.05


def test_chunks_hold_everyone_once_and_group_by_length():
    rng = np.random.default_rng(0)
    for _ in range(50):
        steps = rng.integers(1, 60, rng.integers(1, 40))
        groups = engine.chunks(steps, 16)
        assert sorted(np.concatenate(groups)) == list(range(len(steps)))
        assert max(map(len, groups)) <= 16
    assert [len(group) for group in engine.chunks(np.array([100] * 3 + [1] * 5), 16)] == [3, 5]


class Again:
    """A recorder that calls the function again: what reads anything but the fixed memory goes wrong."""

    def __init__(self):
        self.captures = 0

    def warm(self, function):
        return function()

    def capture(self, function):
        self.captures += 1
        return function


@pytest.mark.parametrize("way", ["loop", "vmap"])
@pytest.mark.parametrize("name", METHODS.names())
def test_replayed_step_equals_plain(name, way):
    """Long stages: one captured step, replayed, gives the plain fold's bits."""
    recorder = Again()
    made = world(method(name), engine=way, sizes=(60, 190, 130), epochs=2, cohort_size=2)
    replayed = replace(made, recorder=recorder, captured={})
    assert 2 * 190 / 5 > WHOLE > SHORTEST
    assert distance(played(made, 1), played(replayed, 1)) < 1e-12
    assert recorder.captures > 0
    assert "contribute" not in {key[0] for key in replayed.captured}  # too long to be captured whole


@pytest.mark.parametrize("name", METHODS.names())
def test_replayed_stage_equals_plain(name):
    """Short stages: captured whole, once per stage and not once per round."""
    recorder = Again()
    made = world(method(name), engine="vmap", epochs=1)
    replayed = replace(made, recorder=recorder, captured={})
    assert distance(played(made, 4), played(replayed, 4)) < 1e-12
    assert recorder.captures == len(replayed.captured) <= 2


def test_stage_graph_reads_only_its_inputs():
    graph = StageGraph(Again(), lambda inputs: {"y": 2 * inputs["x"]}, {"x": torch.ones(3)})
    first = graph({"x": torch.tensor([1.0, 2.0, 3.0])})
    graph({"x": torch.zeros(3)})
    assert first["y"].tolist() == [2.0, 4.0, 6.0]  # a result is a value: a later replay does not change it


def test_captured_fold_runs_the_first_steps_eagerly():
    assert 0 < WARM < SHORTEST
    assert fold_with(Again()) is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("way", ["loop", "vmap"])
@pytest.mark.parametrize("name", METHODS.names())
def test_cuda_graph_equals_cpu(name, way):
    from pflbench.engine.captured import CudaRecorder
    from pflbench.experiment.build import set_arithmetic

    set_arithmetic("float64")
    device = torch.device("cuda")
    sizes = (60, 190, 130, 170)
    cpu = world(method(name), engine=way, sizes=sizes, cohort_size=3)
    states = []
    for recorder in (None, CudaRecorder(device)):
        move = lambda pixels: type(pixels)(*(getattr(pixels, field).to(device) for field in ("x", "y", "mean", "std")))  # noqa: E731
        task = replace(cpu.task, start=tree.each(lambda leaf: leaf.to(device), cpu.task.start))
        made = replace(
            cpu, task=task, pixels=move(cpu.pixels), official=move(cpu.official), recorder=recorder, captured={}
        )
        twice = [played(made, 2) for _ in range(2)]
        assert same_bits(*twice)
        states.append(Federation(*tree.each(lambda leaf: leaf.cpu(), tuple(twice[0]))))
    reference = played(cpu, 2)
    assert all(distance(reference, state) < 1e-9 for state in states)
