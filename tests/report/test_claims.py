"""Verdicts follow from numbers."""

from dataclasses import replace

import numpy as np
import pytest
from studies import FIGURES, claim_of, made, rows_of, study_of

from pflbench.report import claims, figures, stats


@pytest.mark.parametrize(
    ("mine", "verdict"),
    [((0.90, 0.91, 0.92), "supported"), ((0.50, 0.51, 0.52), "not supported"), ((0.6, 0.8, 0.7), "inconclusive")],
)
def test_verdicts_on_known_answers(mine, verdict):
    runs = rows_of("spectral", mine) + rows_of("ditto", (0.70, 0.71, 0.72)) + rows_of("fedavg", (0.68, 0.69, 0.70))
    found = claims.judge("C0", claim_of(), study_of(runs))
    assert found.verdict == verdict
    assert len(found.findings) == 2
    assert found.findings[0].interval.mean == pytest.approx(np.mean(mine) - 0.71)
    assert found.findings[0].interval == stats.seed_interval(np.array(mine) - [0.70, 0.71, 0.72])


def test_one_clear_loss_denies_and_one_open_contrast_keeps_open():
    ditto, fedavg = rows_of("ditto", (0.70, 0.71, 0.72)), rows_of("fedavg", (0.95, 0.96, 0.97))
    runs = [*rows_of("spectral", (0.80, 0.81, 0.82)), *ditto, *fedavg]
    assert claims.judge("C0", claim_of(), study_of(runs)).verdict == "not supported"
    runs = [*rows_of("spectral", (0.80, 0.81, 0.82)), *ditto, *rows_of("fedavg", (0.7, 0.9, 0.6))]
    judgement = claims.judge("C0", claim_of(), study_of(runs))
    assert judgement.verdict == "inconclusive"
    assert [each.b for each in judgement.failing] == ["fedavg"]


def test_fewer_than_three_seeds_decide_nothing():
    runs = rows_of("spectral", (0.90, 0.91)) + rows_of("ditto", (0.1, 0.11))
    assert claims.judge("C0", claim_of(), study_of(runs, seeds=2)).verdict == "inconclusive"
    runs = rows_of("spectral", (0.90,)) + rows_of("ditto", (0.1,))
    assert claims.judge("C0", claim_of(), study_of(runs, seeds=1)).verdict == "inconclusive"


def test_equal_runs_are_inconclusive():
    runs = rows_of("spectral", (0.5, 0.6, 0.7)) + rows_of("ditto", (0.5, 0.6, 0.7))
    assert claims.judge("C0", claim_of(), study_of(runs)).verdict == "inconclusive"


def test_a_method_without_such_a_model_is_not_compared():
    runs = rows_of("spectral", (0.90, 0.91, 0.92)) + [made("local_only", seed, pm=0.1) for seed in range(3)]
    assert claims.judge("C0", claim_of(measures=["GM"]), study_of(runs)).note
    assert claims.judge("C0", claim_of(), study_of(runs)).verdict == "supported"


def test_a_coefficient_is_chosen_on_the_other_seeds():
    """Rows: two choices; columns: seeds. Without seed 0 the second is best, without seed 1 or 2 the first."""
    values = np.array([[0.9, 0.5, 0.6], [0.1, 0.7, 0.8]])
    table = [
        [made("kl", seed, pm=value, lam=choice) for seed, value in enumerate(row)] for choice, row in enumerate(values)
    ]
    assert [figures.accuracy(run, "PM") for run in claims.tuned(table, values)] == pytest.approx([0.1, 0.5, 0.6])


def test_the_gain_is_judged_per_fleet():
    claim = claims.Claim(
        text="", figure="waitfree", measures=["gain"], contrasts=[{"a": {"label": "spectral"}}], threshold=1.5
    )
    found = claims.judge("C3", claim, study_of(rows_of("spectral", (0.5, 0.5, 0.5)), "waitfree"))
    assert len(found.findings) == len(claims.FLEETS.names())
    assert all(1 <= each.interval.mean <= 2 for each in found.findings)


def test_doublings_by_hand():
    assert claims.doublings(np.array([1.0, 3.0, 9, 9, 9, 9, 7.0, 9.0])) == pytest.approx(2)  # mean 8 over mean 2


def test_a_narrowed_study_supports_no_claim_about_what_it_left_out():
    claim = claims.read(FIGURES / "claims.yaml")["C1"]
    runs = rows_of("spectral", (0.8, 0.81, 0.82)) + rows_of("fedavg", (0.5, 0.51, 0.52))
    whole = study_of(runs)
    assert claims.judge("C1", claim, whole).verdict == "supported"
    for left_out in ({"rows": ["ditto"]}, {"settings": ["skewed"]}):
        found = claims.judge("C1", claim, replace(whole, left_out=left_out))
        assert found.verdict == "inconclusive"
        assert next(iter(left_out.values()))[0] in found.note
    lost = study_of(rows_of("spectral", (0.1, 0.11, 0.12)) + rows_of("fedavg", (0.5, 0.51, 0.52)))
    assert claims.judge("C1", claim, replace(lost, left_out={"rows": ["ditto"]})).verdict == "not supported"
    audit = claims.read(FIGURES / "claims.yaml")["C8"]
    assert "local_only" not in claims._left_out(audit, replace(whole, left_out={"rows": ["fedprox"]}))
