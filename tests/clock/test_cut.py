"""Cut-off personal work: the clock says how many batches fit, the engine learns from exactly those."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from worlds import played, world

from pflbench.baselines import METHODS
from pflbench.clock.fleet import draw_fleet, load_fleet
from pflbench.clock.timeline import personal_budget, simulate
from pflbench.core import tree
from pflbench.core.errors import BadInput
from pflbench.engine import engine
from pflbench.experiment.experiment import Experiment
from pflbench.experiment.machine import Machine
from pflbench.experiment.resolve import resolve
from pflbench.experiment.run import run


def cuts(made, budget):
    return replace(made, cutoff=[dict.fromkeys(range(made.clients), budget)] * 3)


def equal(first, second):
    pairs = [tree.flatten(tuple(one)) for one in (first, second)]
    return all(torch.equal(leaf, pairs[1][name]) for name, leaf in pairs[0].items())


def made(**changes):
    return world(METHODS.get("spectral")(), **changes)


def test_a_budget_as_large_as_the_plan_cuts_nothing():
    assert equal(played(made()), played(cuts(made(), 1000)))


def test_no_budget_leaves_the_personal_models_as_they_were_and_the_generic_one_learns_on():
    start, found = engine.start(made()), played(cuts(made(), 0))
    assert equal((start.c,), (found.c,))
    assert not equal((start.w,), (found.w,))


def test_a_budget_in_the_second_pass_takes_whole_batches_in_the_planned_order():
    """Client 1 of 23 samples, batches of 5: 5 steps a pass. 7 batches are the first pass and 2 of the second."""
    one = made(momentum=0.0)
    planned = engine._draw(one, 1, 0, "personalise", 2).reshape(-1, 5)
    cut = engine._draw(cuts(one, 7), 1, 0, "personalise", 2).reshape(-1, 5)
    assert (cut[:7] == planned[:7]).all()
    assert (cut[7:] == -1).all()
    assert (engine._draw(cuts(one, 7), 1, 0, "contribute", 2).reshape(-1, 5) == planned).sum() < 50


@pytest.mark.parametrize("budget", [1, 3, 7])
def test_loop_and_vmap_cut_alike(budget):
    loop, vmap = (played(cuts(made(engine=how), budget)) for how in ("loop", "vmap"))
    for name, leaf in tree.flatten(tuple(loop)).items():
        torch.testing.assert_close(leaf, tree.flatten(tuple(vmap))[name], rtol=1e-10, atol=1e-12)


SMALL = {"method": "spectral", "clients": 6, "rounds": 4, "epochs": 1, "participation": 0.5}


def test_an_experiment_with_cut_records_what_it_did_and_delays_no_one(tmp_path):
    machine = Machine(results=tmp_path, device="cpu")
    plain, cut = (run(Experiment.of({**SMALL, **more}), machine).record for more in ({}, {"cut": "wifi"}))
    fleet, rng = draw_fleet(load_fleet("wifi"), 6, seed=0)
    assert cut["costs"]["personalise"] == personal_budget(plain, fleet, rng=rng)
    assert np.concatenate(cut["costs"]["personalise"]).sum() < np.concatenate(plain["costs"]["personalise"]).sum()
    assert {**cut["costs"], "personalise": 0} == {**plain["costs"], "personalise": 0}
    bare = {**cut, "costs": {**cut["costs"], "personalise": [[0] * 3] * 4}}
    for ours, theirs in zip(
        *(simulate(one, fleet, "wait_free", rng=rng, block="client").rounds for one in (cut, bare)), strict=True
    ):
        assert ours.aggregation == pytest.approx(theirs.aggregation)


def test_what_is_not_cut_keeps_its_address_and_the_fleet_belongs_to_it(tmp_path):
    addresses = {resolve(Experiment.of({**SMALL, "cut": cut})).address for cut in (None, "wifi", "lte", "wifi:seed=1")}
    assert len(addresses) == 4
    assert resolve(Experiment.of(SMALL)).address == resolve(Experiment.of({**SMALL, "cut": None})).address
    mine = tmp_path / "wifi.yaml"
    text = yaml.safe_dump({k: v for k, v in load_fleet("wifi").items() if k != "name"})
    mine.write_text(text.replace("about: phones over wifi", "about: other words"))
    assert resolve(Experiment.of({**SMALL, "cut": str(mine)})).address in addresses  # where a file lies is no number
    with pytest.raises(BadInput, match="did you mean wifi"):
        resolve(Experiment.of({**SMALL, "cut": "wify"}))
