"""Intervals, paired tests and rankings, on numpy and scipy alone.

Axes: S seeds, C clients, R resamples. The same seed gives every method the same split, first weights, cohorts and batch
orders, and every client the same test samples, so each comparison here is paired and needs only one ``tested``.
Accuracies are fractions in [0, 1]; counts are integers, one per client.

Which uncertainty is which: ``seed_interval`` and ``permutation_test`` speak of a new seed; ``bootstrap_interval`` and
``paired_difference`` of a new seed and new clients; ``client_permutation_test`` only of the very runs at hand.

Sources: Davison and Hinkley 1997, section 3.8 (nested bootstrap); Holm 1979; Hedges 1981 (correction of d); Demsar,
JMLR 2006 (average ranks, Friedman).
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Counts = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
Alternative = Literal["two-sided", "greater", "less"]
Verdict = Literal["supported", "not supported", "inconclusive"]

ROUNDING = 1e-12  # relative: differences this small against the values they come from are rounding
BLOCK = 2_000_000  # numbers held at once while resampling or flipping signs


@dataclass(frozen=True)
class Interval:
    """An estimate, its interval and the number of seeds under it; at ``seeds`` = 1 it says nothing of another seed."""

    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class EffectSize:
    """``d_z``: mean over standard deviation of the paired differences; ``g_z``: without its small-sample bias."""

    d_z: float
    g_z: float


# Measures of one evaluation: one number per leading index


def micro(correct: Counts, tested: Counts) -> Floats:
    """Accuracy over all test samples. correct, tested: [..., C] -> [...]"""
    tested, correct = _counts(tested, correct=correct)
    return np.asarray(correct.sum(-1) / tested.sum(-1))


def macro(correct: Counts, tested: Counts) -> Floats:
    """Mean of the clients' accuracies, every client equal. correct, tested: [..., C] -> [...]"""
    tested, correct = _counts(tested, correct=correct)
    return np.asarray((correct / tested).mean(-1))


def worst_decile(correct: Counts, tested: Counts) -> Floats:
    """Mean accuracy of the worst ceil(C / 10) clients, every client equal. correct, tested: [..., C] -> [...]"""
    tested, correct = _counts(tested, correct=correct)
    worst = -(-correct.shape[-1] // 10)
    return np.asarray(np.sort(correct / tested, axis=-1)[..., :worst].mean(-1))


def share_below(correct: Counts, tested: Counts, reference_correct: Counts) -> Floats:
    """Share of clients strictly worse than under a reference, such as local-only. All [..., C] -> [...]"""
    tested, correct, reference = _counts(tested, correct=correct, reference_correct=reference_correct)
    return np.asarray((correct < reference).mean(-1))


# Intervals


def bootstrap_interval(
    correct: Counts, tested: Counts, *, level: float = 0.95, resamples: int = 4000, rng: np.random.Generator
) -> Interval:
    """Micro accuracy, mean over seeds, with clients nested in seeds. correct, tested: [S, C]

    Percentile bootstrap: S seeds are drawn with replacement, then C clients within each drawn seed. S = 1 leaves only
    clients to draw, so that the interval says nothing of another seed; C = 1 (one official test set) only seeds.

    Simulated coverage of the 95 % interval at S = 3, 5, 10 (C = 30): where only clients vary .98, .98, .99 (their
    variance is counted on both levels); where seeds vary most .86, .87, .93 (few seeds show too little of theirs). So
    at few seeds a verdict about new seeds wants ``seed_interval``, which covers .94 to .96 in all of these.
    """
    tested, correct = _counts(tested, correct=correct)
    return _nested_bootstrap(correct, tested, level, resamples, rng)


def paired_difference(
    a_correct: Counts,
    b_correct: Counts,
    tested: Counts,
    *,
    level: float = 0.95,
    resamples: int = 4000,
    rng: np.random.Generator,
) -> Interval:
    """Micro accuracy of a minus that of b, as in ``bootstrap_interval``. a_correct, b_correct, tested: [S, C]

    Both methods meet the same drawn seeds and clients, so what they share (a hard split, a hard client) cancels.
    """
    tested, a, b = _counts(tested, a_correct=a_correct, b_correct=b_correct)
    return _nested_bootstrap(a - b, tested, level, resamples, rng)


def seed_interval(values: Floats, *, level: float = 0.95) -> Interval:
    """Student's t interval for the mean over seeds of any number; of a - b for a paired one. values: [S], S >= 2"""
    (values,) = _per_seed(2, values=values)
    _require(0 < level < 1, f"level = {level}: must lie between 0 and 1")
    error = values.std(ddof=1) / np.sqrt(values.size)
    reach = stats.t.ppf((1 + level) / 2, values.size - 1) * error
    mean = values.mean()
    return Interval(float(mean), float(mean - reach), float(mean + reach), values.size)


# Tests


def permutation_test(
    a: Floats, b: Floats, *, alternative: Alternative, resamples: int = 9999, rng: np.random.Generator
) -> float:
    """P-value of the mean of a - b by flipping signs over seeds. a, b: [S], S >= 2; ``greater``: a above b

    Exact when 2^S <= resamples (by default S <= 13; ``rng`` is then not used), else sampled. The smallest p that S
    seeds can give is 2 / 2^S two-sided, 1 / 2^S one-sided: two-sided .25 at 3 seeds, .0625 at 5, .031 at 6. So below 6
    seeds nothing can be significant at 5 %, and Holm over n comparisons asks 2 / 2^S <= .05 / n: 8 seeds for 6 of them.
    A small p licenses: on this data and setting, a beats b over new seeds. A large p at few seeds licenses nothing.
    """
    a, b = _per_seed(2, a=a, b=b)
    return _sign_flip(a - b, alternative, resamples, rng)


def client_permutation_test(
    a_correct: Counts,
    b_correct: Counts,
    tested: Counts,
    *,
    alternative: Alternative,
    resamples: int = 9999,
    rng: np.random.Generator,
) -> float:
    """P-value of the micro difference by flipping signs per client within its seed. All [S, C], S * C >= 2

    Conditional on the seeds. A small p licenses: between the models trained in these S runs, the difference is more
    than the luck of which clients were there. It does not license that the method would win with other seeds: the
    clients of a run share what it trained, and a lucky run lifts all of them, yet each counts as an independent sign.
    """
    tested, a, b = _counts(tested, a_correct=a_correct, b_correct=b_correct)
    _check_nested(tested)
    share = (a - b) / tested.sum(-1, keepdims=True) / len(tested)  # sums to the micro difference, mean over seeds
    return _sign_flip(share.ravel(), alternative, resamples, rng)


def holm(p_values: Floats) -> Floats:
    """Holm's adjustment: family-wise error over all n, whatever their dependence. p_values: [n] -> [n], order kept"""
    p = _p_values(p_values)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1)
    return adjusted


def indistinguishable(adjusted: Floats, *, alpha: float = 0.05) -> NDArray[np.bool_]:
    """Which methods the best cannot be told from, given ``holm`` of their tests against it. adjusted: [n] -> [n]

    Not told apart is not shown equal. Bold the best alone only where none is True.
    """
    return np.asarray(_p_values(adjusted) > alpha)


def effect_size(a: Floats, b: Floats) -> EffectSize | None:
    """Paired Cohen's d_z of a - b and its Hedges correction, exact at S - 1 degrees of freedom. a, b: [S], S >= 3

    Differences that do not vary, up to rounding: all zero is no effect and gives 0; all equal but not zero has no
    finite d_z and gives None, which a table prints as a dash.
    """
    a, b = _per_seed(3, a=a, b=b)
    differences, rounding = a - b, ROUNDING * max(np.abs(a).max(), np.abs(b).max())
    if np.abs(differences).max() <= rounding:
        return EffectSize(0.0, 0.0)
    if np.ptp(differences) <= rounding:
        return None
    d_z = float(differences.mean() / differences.std(ddof=1))
    half = (a.size - 1) / 2
    correction = np.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / np.sqrt(half)
    return EffectSize(d_z, d_z * float(correction))


# Rankings and verdicts


def average_ranks(scores: Floats) -> Floats:
    """Mean rank over settings; 1 is the highest score, ties are averaged. scores: [methods, settings] -> [methods]"""
    return np.asarray(stats.rankdata(-_table(scores, 1), axis=0).mean(axis=1))


def friedman(scores: Floats) -> float:
    """P-value that all methods rank alike. scores: [methods, settings], methods >= 3; 1 where every setting is one tie

    The chi-square behind it is rough below some 10 settings.
    """
    scores = _table(scores, 3)
    return 1.0 if np.ptp(scores, axis=0).max() == 0 else float(stats.friedmanchisquare(*scores).pvalue)


def verdict(interval: Interval, threshold: float, *, at_least: bool = True) -> Verdict:
    """What an interval says of a claim "at least (``at_least`` False: at most) the threshold".

    Supported or not where it lies wholly on one side. One that touches the threshold is inconclusive: two equal
    methods, [0, 0] against 0, show no winner.
    """
    finite = bool(np.isfinite([interval.low, interval.high, threshold]).all())
    _require(finite, f"{interval}, threshold = {threshold}: must be finite")
    above, below = interval.low > threshold, interval.high < threshold
    claimed, denied = (above, below) if at_least else (below, above)
    return "supported" if claimed else "not supported" if denied else "inconclusive"


# The two resampling schemes


def _nested_bootstrap(
    hits: NDArray[np.int64], tested: NDArray[np.int64], level: float, resamples: int, rng: np.random.Generator
) -> Interval:
    """Interval of the mean over seeds of sum(hits) / sum(tested). hits (counts or their differences), tested: [S, C]"""
    _check_nested(tested)
    _require(0 < level < 1, f"level = {level}: must lie between 0 and 1")
    _require(resamples >= 1, f"resamples = {resamples}: must be at least 1")
    seeds, clients = tested.shape
    means = np.zeros(resamples)
    step = max(1, BLOCK // clients)
    for start in range(0, resamples, step):
        rows = means[start : start + step]  # [r], a view
        for _ in range(seeds):
            seed = rng.integers(seeds, size=(rows.size, 1))
            drawn = seed * clients + rng.integers(clients, size=(rows.size, clients))  # [r, C], into the flat [S * C]
            rows += hits.take(drawn).sum(-1) / tested.take(drawn).sum(-1) / seeds
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float((hits.sum(-1) / tested.sum(-1)).mean()), float(low), float(high), seeds)


def _sign_flip(differences: Floats, alternative: Alternative, resamples: int, rng: np.random.Generator) -> float:
    """P-value of the sum when every sign is a fair coin. differences: [n]"""
    _require(resamples >= 1, f"resamples = {resamples}: must be at least 1")
    result = stats.permutation_test(
        (differences,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, BLOCK // differences.size),
        alternative=alternative,
        rng=rng,
    )
    return float(result.pvalue)


# Checks: bad input raises ValueError, naming the argument and its shape


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _counts(tested: Counts, **corrects: Counts) -> list[NDArray[np.int64]]:
    """tested, then the others in order, as int64: unsigned counts would wrap in a difference. All [..., C]"""
    _require(tested.size > 0 and tested.ndim > 0, f"tested {list(tested.shape)}: must be [..., C] and not empty")
    _require(bool((tested >= 1).all()), "tested: must be at least 1 for each client; leave out one without samples")
    for name, correct in corrects.items():
        shapes = f"{name} {list(correct.shape)} and tested {list(tested.shape)}"
        _require(correct.shape == tested.shape, f"{shapes}: must have one shape")
        _require(bool(((correct >= 0) & (correct <= tested)).all()), f"{name}: must lie between 0 and tested")
    counts = {"tested": tested, **corrects}
    for name, count in counts.items():
        _require(np.issubdtype(count.dtype, np.integer), f"{name}: must be integer counts, not {count.dtype}")
    return [count.astype(np.int64) for count in counts.values()]


def _check_nested(tested: Counts) -> None:
    several = tested.ndim == 2 and tested.size > 1
    _require(several, f"tested {list(tested.shape)}: must be [S, C] with more than one seed or client to draw from")


def _per_seed(least: int, **values: Floats) -> list[Floats]:
    """The values as float64. All [S], S >= least"""
    shapes = {value.shape for value in values.values()}
    got = ", ".join(f"{name} {list(value.shape)}" for name, value in values.items())
    alike = len(shapes) == 1 and all(len(shape) == 1 and shape[0] >= least for shape in shapes)
    _require(alike, f"{got}: must be [S], one number per seed, S >= {least}")
    _require(all(np.isfinite(value).all() for value in values.values()), f"{', '.join(values)}: must be finite")
    return [value.astype(np.float64) for value in values.values()]


def _p_values(values: Floats) -> Floats:
    inside = values.ndim == 1 and values.size > 0 and bool(((values >= 0) & (values <= 1)).all())
    _require(inside, f"p-values {list(values.shape)}: must be [n], n >= 1, each in [0, 1]")
    return values


def _table(scores: Floats, methods: int) -> Floats:
    fits = scores.ndim == 2 and scores.shape[0] >= methods and scores.shape[1] > 0 and bool(np.isfinite(scores).all())
    _require(fits, f"scores {list(scores.shape)}: must be finite [methods >= {methods}, settings >= 1]")
    return scores
