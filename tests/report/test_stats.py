"""stats: numbers worked out by hand, equivalences with scipy, symmetries, coverage by simulation."""

import inspect
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from pflbench.report import stats
from pflbench.report.stats import Interval

Ints = NDArray[np.int64]


def stream(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def runs(rng: np.random.Generator, seeds: int, clients: int, by_seed: float, by_client: float) -> tuple[Ints, Ints]:
    """correct, tested: [S, C], 100 samples each; accuracy .7 plus a normal shift per seed and one per client."""
    tested = np.full((seeds, clients), 100)
    shift = by_seed * rng.standard_normal((seeds, 1)) + by_client * rng.standard_normal((seeds, clients))
    return rng.binomial(tested, np.clip(0.7 + shift, 0, 1)), tested


def width(interval: Interval) -> float:
    return interval.high - interval.low


# Measures


def test_measures_by_hand() -> None:
    correct, tested = np.array([[9, 1, 5], [2, 3, 20]]), np.array([[10, 2, 10], [4, 4, 40]])
    # micro pools 9 + 1 + 5 of 22 and 2 + 3 + 20 of 48
    np.testing.assert_allclose(stats.micro(correct, tested), [15 / 22, 25 / 48])
    # macro averages .9, .5, .5 and .5, .75, .5
    np.testing.assert_allclose(stats.macro(correct, tested), [1.9 / 3, 1.75 / 3])
    # against 9, 2, 4: only client 1 of seed 0 is strictly worse; against 3, 3, 21: clients 0 and 2 of seed 1
    reference = np.array([[9, 2, 4], [3, 3, 21]])
    np.testing.assert_allclose(stats.share_below(correct, tested, reference), [1 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        (1, 0.0),  # ceil(.1) = 1 client: accuracy 0
        (10, 0.0),  # ceil(1) = 1
        (11, 0.005),  # ceil(1.1) = 2: (0 + .01) / 2
        (20, 0.005),  # ceil(2) = 2
        (30, 0.01),  # ceil(3) = 3: (0 + .01 + .02) / 3; in floating point .1 * 30 must not become 4 clients
        (31, 0.015),  # ceil(3.1) = 4: (0 + .01 + .02 + .03) / 4
    ],
)
def test_worst_decile_takes_ceil_of_a_tenth(clients: int, expected: float) -> None:
    correct = stream().permutation(clients)  # accuracies 0, .01, .02, ... in any order
    assert float(stats.worst_decile(correct, np.full(clients, 100))) == pytest.approx(expected)


def test_worst_decile_ranks_by_accuracy_not_by_count() -> None:
    # accuracies 1, .5, 1, ..., 1: the worst has the most correct answers
    correct, tested = np.array([3, 50, *[3] * 8]), np.array([3, 100, *[3] * 8])
    assert float(stats.worst_decile(correct, tested)) == 0.5


@pytest.mark.parametrize("measure", [stats.micro, stats.macro, stats.worst_decile])
def test_measures_keep_the_leading_axes(measure: Callable[[Ints, Ints], NDArray[np.float64]]) -> None:
    tested = stream().integers(1, 50, size=(2, 3, 25))
    correct = stream(1).binomial(tested, 0.6)
    whole = measure(correct, tested)
    assert whole.shape == (2, 3)
    for index in np.ndindex(2, 3):
        assert whole[index] == measure(correct[index], tested[index])
    assert measure(correct[0, 0], tested[0, 0]).shape == ()


# Bootstrap


def test_bootstrap_of_one_seed_and_two_clients_by_hand() -> None:
    # two clients, 0 and 10 of 10 right: the draws (0, 0), (0, 1), (1, 0), (1, 1) give 0, .5, .5, 1, a quarter each
    correct, tested = np.array([[0, 10]]), np.array([[10, 10]])
    wide = stats.bootstrap_interval(correct, tested, level=0.95, rng=stream())
    assert wide == Interval(mean=0.5, low=0.0, high=1.0, seeds=1)
    # a level of .4 asks for the quantiles .3 and .7, both inside the half that gives .5
    assert stats.bootstrap_interval(correct, tested, level=0.4, rng=stream()) == Interval(0.5, 0.5, 0.5, 1)


def test_bootstrap_of_two_seeds_and_one_client_by_hand() -> None:
    # one official test set per seed, .2 and .6: resampled means .2, .4, .4, .6; the mean of the seeds is .4
    interval = stats.bootstrap_interval(np.array([[2], [6]]), np.array([[10], [10]]), rng=stream())
    assert asdict(interval) == pytest.approx({"mean": 0.4, "low": 0.2, "high": 0.6, "seeds": 2})


def test_bootstrap_draws_clients_within_their_own_seed() -> None:
    # seed 0 has only clients at 0, seed 1 only clients at 1, so a drawn seed is 0 or 1 and the mean 0, .5, .5 or 1, a
    # quarter each: the quantiles .3 and .7 are exactly .5. Clients drawn across seeds would spread around .5 instead.
    correct, tested = np.repeat([[0], [10]], 10, axis=1), np.full((2, 10), 10)
    assert stats.bootstrap_interval(correct, tested, level=0.4, rng=stream()) == Interval(0.5, 0.5, 0.5, 2)
    assert stats.bootstrap_interval(correct, tested, level=0.95, rng=stream()) == Interval(0.5, 0.0, 1.0, 2)


def test_bootstrap_variance_matches_the_two_stage_formula() -> None:
    # Equal tested: a resampled mean has variance [between + mean over seeds of within / C] / S, with plug-in (ddof = 0)
    # variances of the seeds' accuracies and of the clients within each. A normal 95 % interval is 2 * 1.96 of its root.
    correct, tested = runs(stream(), seeds=12, clients=40, by_seed=0.03, by_client=0.1)
    accuracy = correct / tested
    variance = (accuracy.mean(1).var() + accuracy.var(1).mean() / 40) / 12
    interval = stats.bootstrap_interval(correct, tested, resamples=20_000, rng=stream(1))
    assert width(interval) == pytest.approx(2 * 1.96 * variance**0.5, rel=0.04)


def test_bootstrap_mean_is_the_mean_over_seeds_of_micro() -> None:
    # seed 0: 10 / 20, seed 1: 80 / 80; the mean is .75, not the pooled 90 / 100
    interval = stats.bootstrap_interval(np.array([[5, 5], [40, 40]]), np.array([[10, 10], [40, 40]]), rng=stream())
    assert interval.mean == 0.75


def test_bootstrap_is_micro_inside_a_resample() -> None:
    # one seed, clients 9 of 90 and 10 of 10: draws give .1, 19/100, 19/100, 1; macro would put .55 in the middle
    interval = stats.bootstrap_interval(np.array([[9, 10]]), np.array([[90, 10]]), level=0.4, rng=stream())
    assert asdict(interval) == pytest.approx({"mean": 0.19, "low": 0.19, "high": 0.19, "seeds": 1})


def test_bootstrap_covers_the_truth() -> None:
    rng, covered, covered_t = stream(), 0, 0
    for _ in range(400):
        correct, tested = runs(rng, seeds=8, clients=20, by_seed=0.02, by_client=0.05)
        interval = stats.bootstrap_interval(correct, tested, resamples=400, rng=rng)
        student = stats.seed_interval(stats.micro(correct, tested))
        covered += interval.low <= 0.7 <= interval.high
        covered_t += student.low <= 0.7 <= student.high
    assert 0.90 <= covered / 400 <= 0.99
    assert 0.92 <= covered_t / 400 <= 0.98  # Student's t is exact for normal seeds


def test_bootstrap_is_wider_when_seeds_vary_too() -> None:
    same_total = 0.05  # the same spread per client in both, but shared within the seed in one of them
    clients_only = runs(stream(), seeds=10, clients=40, by_seed=0, by_client=same_total)
    seeds_too = runs(stream(), seeds=10, clients=40, by_seed=same_total, by_client=0)
    narrow, wide = (stats.bootstrap_interval(c, t, rng=stream(1)) for c, t in (clients_only, seeds_too))
    assert width(wide) > 2 * width(narrow)


def test_bootstrap_in_small_blocks_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    correct, tested = runs(stream(), seeds=5, clients=30, by_seed=0.02, by_client=0.05)
    whole = stats.bootstrap_interval(correct, tested, rng=stream(1))
    monkeypatch.setattr(stats, "BLOCK", 30 * 37)  # 37 resamples at a time, so that the last block is not full
    blocks = stats.bootstrap_interval(correct, tested, rng=stream(1))
    assert blocks.low == pytest.approx(whole.low, abs=0.1 * width(whole))
    assert blocks.high == pytest.approx(whole.high, abs=0.1 * width(whole))


def test_same_stream_same_interval() -> None:
    correct, tested = runs(stream(), seeds=3, clients=20, by_seed=0.02, by_client=0.05)
    first, again, other = (stats.bootstrap_interval(correct, tested, rng=stream(seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_more_level_is_wider() -> None:
    correct, tested = runs(stream(), seeds=4, clients=20, by_seed=0.02, by_client=0.05)
    widths = [
        width(stats.bootstrap_interval(correct, tested, level=level, rng=stream(1))) for level in (0.5, 0.9, 0.99)
    ]
    assert widths == sorted(set(widths))


# Paired differences


def test_identical_methods_differ_by_exactly_nothing() -> None:
    correct, tested = runs(stream(), seeds=5, clients=20, by_seed=0.05, by_client=0.05)
    assert stats.paired_difference(correct, correct, tested, rng=stream()) == Interval(0.0, 0.0, 0.0, 5)
    values = stats.micro(correct, tested)
    for alternative in ("two-sided", "greater", "less"):
        assert stats.permutation_test(values, values, alternative=alternative, rng=stream()) == 1
        assert stats.client_permutation_test(correct, correct, tested, alternative=alternative, rng=stream()) == 1
    effect = stats.effect_size(values, values)
    assert effect is not None
    assert (effect.d_z, effect.g_z) == (0, 0)


def test_swapping_the_methods_flips_the_sign() -> None:
    a, tested = runs(stream(), seeds=5, clients=20, by_seed=0.05, by_client=0.05)
    b, _ = runs(stream(1), seeds=5, clients=20, by_seed=0.05, by_client=0.05)
    ab, ba = (stats.paired_difference(*pair, tested, rng=stream(2)) for pair in ((a, b), (b, a)))
    assert ab.mean == -ba.mean
    np.testing.assert_allclose([ab.low, ab.high], [-ba.high, -ba.low], atol=1e-12)
    x, y = stats.micro(a, tested), stats.micro(b, tested)
    effect, opposite = stats.effect_size(x, y), stats.effect_size(y, x)
    assert effect is not None
    assert opposite is not None
    assert (effect.d_z, effect.g_z) == (-opposite.d_z, -opposite.g_z)
    greater = stats.permutation_test(x, y, alternative="greater", rng=stream())
    assert greater == stats.permutation_test(y, x, alternative="less", rng=stream())


def test_pairing_cancels_what_the_methods_share() -> None:
    # b is a with 2 of 100 taken off at every client: the difference is .02 in every seed and client, whatever is drawn
    a, tested = runs(stream(), seeds=5, clients=20, by_seed=0.05, by_client=0.05)
    paired = stats.paired_difference(a, a - 2, tested, rng=stream(1))
    assert [paired.mean, paired.low, paired.high] == pytest.approx([0.02] * 3)
    one = stats.bootstrap_interval(a, tested, rng=stream(1))
    assert width(one) > 0.02


def test_paired_difference_is_narrower_than_unpaired_for_correlated_runs() -> None:
    rng = stream()
    shared, tested = runs(rng, seeds=6, clients=30, by_seed=0.05, by_client=0.1)
    a, b = rng.binomial(tested, shared / tested), rng.binomial(tested, shared / tested)
    paired = width(stats.paired_difference(a, b, tested, rng=rng))
    alone = [width(stats.bootstrap_interval(x, tested, rng=rng)) for x in (a, b)]
    assert paired < (alone[0] ** 2 + alone[1] ** 2) ** 0.5 / 2


def test_unsigned_counts_do_not_wrap() -> None:
    a, b, tested = (np.array([[x, x]], dtype=np.uint8) for x in (1, 3, 10))  # 1 - 3 is 254 in uint8
    assert stats.paired_difference(a, b, tested, rng=stream()).mean == pytest.approx(-0.2)
    assert stats.micro(np.full(9, 200, dtype=np.uint8), np.full(9, 250, dtype=np.uint8)) == pytest.approx(0.8)


# Seeds


def test_seed_interval_by_hand_and_by_scipy() -> None:
    # .7, .8, .9: mean .8, sd .1, error .1 / sqrt(3) = .057735; t(2) at 97.5 % is 4.302653; reach .248414
    values = np.array([0.7, 0.8, 0.9])
    interval = stats.seed_interval(values)
    assert asdict(interval) == pytest.approx({"mean": 0.8, "low": 0.551586, "high": 1.048414, "seeds": 3}, abs=1e-6)
    scipy_interval = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.9)
    narrower = stats.seed_interval(values, level=0.9)
    assert (narrower.low, narrower.high) == pytest.approx((scipy_interval.low, scipy_interval.high))


def test_seed_interval_of_equal_seeds_is_a_point() -> None:
    assert stats.seed_interval(np.array([0.5, 0.5, 0.5])) == Interval(0.5, 0.5, 0.5, 3)


def test_intervals_are_plain_json() -> None:
    interval = stats.seed_interval(np.array([0.7, 0.8, 0.9]))
    assert Interval(**json.loads(json.dumps(asdict(interval), allow_nan=False))) == interval


# Permutation tests


def enumerated(differences: NDArray[np.float64], alternative: str) -> float:
    """The same p by listing all 2^n signs."""
    signs = np.array(list(itertools.product([1, -1], repeat=differences.size)))
    null, observed = signs @ differences, differences.sum()
    greater, less = (null >= observed - 1e-12).mean(), (null <= observed + 1e-12).mean()
    return float({"greater": greater, "less": less, "two-sided": min(1, 2 * min(greater, less))}[alternative])


@pytest.mark.parametrize("seeds", [2, 3, 5, 6])
def test_smallest_p_is_two_in_two_to_the_seeds(seeds: int) -> None:
    a, b = np.arange(1.0, seeds + 1), np.zeros(seeds)  # a wins at every seed: only the signs as observed reach the sum
    p = {
        alternative: stats.permutation_test(a, b, alternative=alternative, rng=stream())
        for alternative in ("two-sided", "greater", "less")
    }
    assert p == {"two-sided": 2 / 2**seeds, "greater": 1 / 2**seeds, "less": 1.0}


def test_permutation_by_hand() -> None:
    # differences 3, 2, -1: sum 4. The eight sums: 6, 4, 2, 0, 0, -2, -4, -6; at least 4: two, so 2/8, two-sided 4/8
    a, b = np.array([5.0, 4.0, 1.0]), np.array([2.0, 2.0, 2.0])
    assert stats.permutation_test(a, b, alternative="greater", rng=stream()) == 0.25
    assert stats.permutation_test(a, b, alternative="two-sided", rng=stream()) == 0.5
    # at most 4: all but the 6
    assert stats.permutation_test(a, b, alternative="less", rng=stream()) == 7 / 8


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_permutation_by_enumeration_and_by_scipy(alternative: Any) -> None:
    a, b = stream().normal(0.3, 1, 9), stream(1).normal(0, 1, 9)
    p = stats.permutation_test(a, b, alternative=alternative, rng=stream())
    assert p == pytest.approx(enumerated(a - b, alternative))
    swapped = scipy_stats.permutation_test(  # scipy's paired form: swap a and b within a seed
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", alternative=alternative, rng=stream()
    )
    assert p == pytest.approx(float(swapped.pvalue))


def test_sampled_permutation_is_near_the_exact_one_and_never_zero() -> None:
    a, b = stream().normal(0.5, 1, 12), np.zeros(12)
    exact = stats.permutation_test(a, b, alternative="two-sided", rng=stream())
    sampled = stats.permutation_test(a, b, alternative="two-sided", resamples=3000, rng=stream())
    assert sampled == pytest.approx(exact, abs=4 * (exact / 3000) ** 0.5)
    # 40 wins of 40: the exact p is 2 / 2^40; sampled it is (0 + 1) / (999 + 1), twice
    assert stats.permutation_test(
        np.ones(40), np.zeros(40), alternative="two-sided", resamples=999, rng=stream()
    ) == pytest.approx(0.002)


def test_same_stream_same_sampled_p() -> None:
    a, b = stream().normal(0.2, 1, 30), np.zeros(30)
    first, again, other = (
        stats.permutation_test(a, b, alternative="two-sided", resamples=999, rng=stream(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_client_permutation_by_enumeration() -> None:
    # seed 0 tests 10 + 30 samples, seed 1 tests 20 + 20; a - b is 2, 3 and 4, -1: shares of the seed's micro difference
    # 2/40, 3/40, 4/40, -1/40, sum 8/40. Of the sixteen sums +-2 +-3 +-4 +-1 two reach 8: 10 (all plus) and 8 (1 minus)
    a, b = np.array([[7, 23], [14, 9]]), np.array([[5, 20], [10, 10]])
    tested = np.array([[10, 30], [20, 20]])
    assert stats.client_permutation_test(a, b, tested, alternative="greater", rng=stream()) == 2 / 16
    assert stats.client_permutation_test(a, b, tested, alternative="two-sided", rng=stream()) == 4 / 16


def test_client_permutation_weighs_clients_by_their_samples() -> None:
    # +1 of 10 and -5 of 90: micro .01 - .05 = -.04, reached by .06, .04 and -.04, three of 4; per client the mean of .1
    # and -.056 would be above 0 and reached by two
    a, b, tested = np.array([[6, 45]]), np.array([[5, 50]]), np.array([[10, 90]])
    assert stats.client_permutation_test(a, b, tested, alternative="greater", rng=stream()) == 3 / 4


def test_client_permutation_weighs_each_seed_alike() -> None:
    # seed 0: +1 of 10 twice, seed 1: -10 of 1000 twice. Shares of the micro difference .05, .05, -.005, -.005: .09 > 0
    # though a has fewer right in all. With seed 0 at ++ the sums are .11, .10, .10, .09: these four of 16 reach .09
    a, b = np.array([[6, 6], [490, 490]]), np.array([[5, 5], [500, 500]])
    tested = np.array([[10, 10], [1000, 1000]])
    assert stats.client_permutation_test(a, b, tested, alternative="greater", rng=stream()) == 4 / 16


def test_client_permutation_is_level_under_its_own_null_but_not_for_new_seeds() -> None:
    """What its docstring confesses: a shift shared by the clients of a run is taken for evidence."""

    def rejections(by_seed: float) -> float:
        rng, rejected = stream(), 0
        for _ in range(100):
            shift = by_seed * rng.standard_normal((3, 1))  # the luck of a run: no method is better over new seeds
            tested = np.full((3, 20), 100)
            a, b = rng.binomial(tested, 0.7 + shift), rng.binomial(tested, np.full((3, 20), 0.7))
            p = stats.client_permutation_test(a, b, tested, alternative="two-sided", resamples=199, rng=rng)
            rejected += p <= 0.05
        return rejected / 100

    assert rejections(by_seed=0) <= 0.12
    assert rejections(by_seed=0.04) >= 0.4


# Many comparisons


def test_holm_by_hand() -> None:
    # sorted .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, .04; running maximum .02, .03, .06, .06
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(stats.holm(p), [0.03, 0.06, 0.06, 0.02])


def test_holm_caps_at_one_and_keeps_ties() -> None:
    # .02 twice of 3: 3 * .02 = .06, and the second, 2 * .02 = .04, is lifted to .06; .9 stays
    np.testing.assert_allclose(stats.holm(np.array([0.02, 0.9, 0.02])), [0.06, 0.9, 0.06])
    # 3 * .5 is capped at 1, and so are those above it
    np.testing.assert_array_equal(stats.holm(np.array([0.5, 0.6, 0.7])), [1, 1, 1])
    np.testing.assert_array_equal(stats.holm(np.array([0.04])), [0.04])


def test_holm_keeps_the_order_lies_below_bonferroni_and_does_not_touch_its_input() -> None:
    p = stream().random(50) ** 4
    kept = p.copy()
    adjusted = stats.holm(p)
    np.testing.assert_array_equal(p, kept)
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert ((adjusted >= p) & (adjusted <= np.minimum(1, 50 * p))).all()
    shuffle = stream(1).permutation(50)
    np.testing.assert_array_equal(stats.holm(p[shuffle]), adjusted[shuffle])


def test_indistinguishable_follows_the_adjusted_p() -> None:
    # raw .01, .04, .03, .005 are all below .05; adjusted .03, .06, .06, .02: the middle two cannot be told apart
    adjusted = stats.holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert stats.indistinguishable(adjusted).tolist() == [False, True, True, False]
    assert stats.indistinguishable(adjusted, alpha=0.1).tolist() == [False] * 4


def test_three_seeds_never_tell_methods_apart() -> None:
    a = np.array([0.9, 0.9, 0.9])
    p = [stats.permutation_test(a, a - gap, alternative="two-sided", rng=stream()) for gap in (0.1, 0.5)]
    assert stats.indistinguishable(stats.holm(np.array(p))).all()


# Effect size


def test_effect_size_by_hand() -> None:
    # differences 1, 2, 3: mean 2, sd 1, d_z = 2; at 2 degrees of freedom J = G(1) / (sqrt(1) G(1/2)) = 1 / sqrt(pi)
    effect = stats.effect_size(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    assert effect is not None
    assert (effect.d_z, effect.g_z) == pytest.approx((2, 2 / np.pi**0.5))


def test_effect_size_is_t_over_root_n_and_the_correction_fades() -> None:
    for seeds, tolerance in ((5, 0.01), (100, 1e-4)):
        a, b = stream().normal(1, 1, seeds), stream(1).normal(0, 1, seeds)
        effect = stats.effect_size(a, b)
        assert effect is not None
        assert effect.d_z == pytest.approx(scipy_stats.ttest_rel(a, b).statistic / seeds**0.5)
        assert effect.g_z / effect.d_z == pytest.approx(1 - 3 / (4 * (seeds - 1) - 1), abs=tolerance)  # Hedges' own


def test_effect_size_of_a_constant_difference_is_none_also_up_to_rounding() -> None:
    a = np.array([0.1, 0.3, 0.9])
    b = np.array([0.0, 0.2, 0.8])  # a - b is .1 three times, but not to the last bit
    assert np.ptp(a - b) > 0
    assert stats.effect_size(a, b) is None
    equal = stats.effect_size(np.array([0.1 + 0.2] * 3), np.array([0.3] * 3))  # .1 + .2 is not .3 in floating point
    assert equal is not None
    assert equal.d_z == 0


# Ranks


def test_average_ranks_by_hand() -> None:
    # setting 0: .9, .8, .7 -> 1, 2, 3; setting 1: .5, .5, .6 -> 2.5, 2.5, 1; setting 2: a tie of three -> 2, 2, 2
    scores = np.array([[0.9, 0.5, 0.4], [0.8, 0.5, 0.4], [0.7, 0.6, 0.4]])
    np.testing.assert_allclose(stats.average_ranks(scores), [5.5 / 3, 6.5 / 3, 6 / 3])


def test_friedman_by_hand() -> None:
    # 3 methods always in the same order over 4 settings: rank sums 4, 8, 12;
    # chi2 = 12 / (4 * 3 * 4) * (16 + 64 + 144) - 3 * 4 * 4 = 56 - 48 = 8, p at 2 degrees of freedom = exp(-8 / 2)
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.5, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4]])
    assert stats.friedman(scores) == pytest.approx(np.exp(-4))
    assert stats.friedman(np.ones((3, 4))) == 1  # scipy divides 0 by 0 here


# Verdicts


@pytest.mark.parametrize(
    ("low", "high", "threshold", "at_least", "at_most"),
    [
        (0.01, 0.03, 0.0, "supported", "not supported"),
        (-0.03, -0.01, 0.0, "not supported", "supported"),
        (-0.01, 0.03, 0.0, "inconclusive", "inconclusive"),
        (0.01, 0.03, 0.02, "inconclusive", "inconclusive"),
        (1.6, 1.9, 1.5, "supported", "not supported"),
        (0.0, 0.03, 0.0, "inconclusive", "inconclusive"),  # touches
        (-0.03, 0.0, 0.0, "inconclusive", "inconclusive"),  # touches
        (0.0, 0.0, 0.0, "inconclusive", "inconclusive"),  # two identical methods
    ],
)
def test_verdict(low: float, high: float, threshold: float, at_least: str, at_most: str) -> None:
    interval = Interval((low + high) / 2, low, high, 5)
    assert stats.verdict(interval, threshold) == at_least
    assert stats.verdict(interval, threshold, at_least=False) == at_most


# Bad input


PAIR = np.array([[1, 2]])
TESTED = np.array([[4, 4]])
ONES = np.ones(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.micro(PAIR, TESTED[0]), "correct [1, 2] and tested [2]: must have one shape"),
        (lambda: stats.micro(PAIR, np.array([[4, 0]])), "tested: must be at least 1 for each client"),
        (lambda: stats.macro(PAIR[:, :0], TESTED[:, :0]), "tested [1, 0]: must be [..., C] and not empty"),
        (lambda: stats.micro(np.array(1), np.array(2)), "tested []: must be [..., C] and not empty"),
        (lambda: stats.micro(PAIR * 3, TESTED), "correct: must lie between 0 and tested"),
        (lambda: stats.micro(-PAIR, TESTED), "correct: must lie between 0 and tested"),
        (lambda: stats.micro(cast("Ints", PAIR / 4), TESTED), "correct: must be integer counts, not float64"),
        (lambda: stats.share_below(PAIR, TESTED, PAIR[:, :1]), "reference_correct [1, 1] and tested [1, 2]"),
        (lambda: stats.bootstrap_interval(PAIR[0], TESTED[0], rng=stream()), "tested [2]: must be [S, C]"),
        (lambda: stats.bootstrap_interval(PAIR[:, :1], TESTED[:, :1], rng=stream()), "more than one seed or client"),
        (
            lambda: stats.bootstrap_interval(PAIR, TESTED, level=95, rng=stream()),
            "level = 95: must lie between 0 and 1",
        ),
        (
            lambda: stats.bootstrap_interval(PAIR, TESTED, resamples=0, rng=stream()),
            "resamples = 0: must be at least 1",
        ),
        (lambda: stats.paired_difference(PAIR, PAIR.T, TESTED, rng=stream()), "b_correct [2, 1] and tested [1, 2]"),
        (lambda: stats.seed_interval(ONES[:1]), "values [1]: must be [S], one number per seed, S >= 2"),
        (lambda: stats.seed_interval(ONES, level=1.0), "level = 1.0: must lie between 0 and 1"),
        (lambda: stats.seed_interval(ONES * np.nan), "values: must be finite"),
        (
            lambda: stats.permutation_test(ONES, ONES[:2], alternative="greater", rng=stream()),
            "a [3], b [2]: must be [S], one number per seed, S >= 2",
        ),
        (lambda: stats.permutation_test(ONES, ONES, alternative="less", resamples=0, rng=stream()), "resamples = 0"),
        (
            lambda: stats.client_permutation_test(PAIR[0], PAIR[0], TESTED[0], alternative="less", rng=stream()),
            "tested [2]: must be [S, C]",
        ),
        (lambda: stats.effect_size(ONES[:2], ONES[:2]), "a [2], b [2]: must be [S], one number per seed, S >= 3"),
        (lambda: stats.holm(np.array([0.1, np.nan])), "p-values [2]: must be [n], n >= 1, each in [0, 1]"),
        (lambda: stats.holm(np.array([])), "p-values [0]: must be [n]"),
        (lambda: stats.indistinguishable(np.array([np.nan])), "p-values [1]: must be [n], n >= 1, each in [0, 1]"),
        (lambda: stats.average_ranks(ONES), "scores [3]: must be finite [methods >= 1, settings >= 1]"),
        (lambda: stats.friedman(np.ones((2, 5))), "scores [2, 5]: must be finite [methods >= 3, settings >= 1]"),
        (lambda: stats.verdict(Interval(0, 0, 1, 3), float("nan")), "threshold = nan: must be finite"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    "function",
    [stats.bootstrap_interval, stats.paired_difference, stats.permutation_test, stats.client_permutation_test],
)
def test_a_generator_is_required(function: Callable[..., object]) -> None:
    rng = inspect.signature(function).parameters["rng"]
    assert (rng.kind, rng.default) == (rng.KEYWORD_ONLY, rng.empty)
