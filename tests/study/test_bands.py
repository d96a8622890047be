"""Bands of the spectrum."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from studies import FIGURES

from pflbench.core import spectrum
from pflbench.core.errors import BadInput
from pflbench.experiment.machine import Machine
from pflbench.report import figures
from pflbench.study import bands, runs
from pflbench.study.workload import Workload


def test_bands_add_up_to_the_divergence_of_the_method():
    chance = torch.Generator().manual_seed(0)
    shapes = [(6, 9), (4, 3, 3, 3)]
    pm, gm = ([torch.randn(shape, generator=chance, dtype=torch.float64) for shape in shapes] for _ in range(2))
    plan = spectrum.Selection(((6, 9), (4, 27)))
    whole = spectrum.distance(gm, plan, "kl", "pm")(pm)
    found = bands.bands(pm, gm)
    torch.testing.assert_close(found.divergence.sum(), whole)
    torch.testing.assert_close(found.mass.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert (bands.bands(pm, pm).divergence.abs() < 1e-15).all()
    shuffled = bands.bands(pm, gm, permute=True)
    torch.testing.assert_close(shuffled.mass.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert not torch.allclose(shuffled.divergence, found.divergence)


def test_the_lowest_band_holds_the_lowest_frequencies():
    """Two models that differ by one slow wave differ in the lowest band, unless entries are shuffled."""
    noise = torch.randn((16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slow = torch.cos(2 * torch.pi * torch.arange(16, dtype=torch.float64) / 16)[:, None].expand(16, 16)
    plain, shuffled = (bands.bands([noise + slow], [noise], permute).relative for permute in (False, True))
    assert plain[0] > 10 * plain[1:].max()
    assert shuffled[0] < 2 * shuffled[1:].max()


def test_measured_models_are_those_of_the_record(copy):
    each = next(one for one in Workload.of("tiny", ["two"]).needed if one.extras)
    path = each.path(Path("results"))
    frame = pd.read_csv(path.with_suffix(".bands.csv"))
    assert set(frame["round"]) == {1, 2}
    assert len(frame) == 2 * 2 * bands.BANDS
    card = figures.load_module(FIGURES / "partition" / "figure.py").card_of(path.with_suffix(".split.npz"))
    assert card["train_sizes"] == json.loads(path.read_text())["clients"]["train"]
    record = {**json.loads(path.read_text()), "fingerprint": "other"}
    with pytest.raises(BadInput, match="does not come out the same"):
        list(runs.band_rows(each.experiment, Machine(device="cpu"), record))
