"""Laws of the partitions: who gets what, in which proportion, and that every scheme ends."""

from inspect import signature

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pflbench.core.errors import BadInput
from pflbench.data.partitions import PARTITIONS, hold_out, local_tests, partition
from pflbench.data.schemes import class_counts, label_distance

LABELS = np.random.default_rng(0).integers(0, 10, 1437)
SCHEMES = {  # of labels alone
    name: PARTITIONS.get(name)
    for name in PARTITIONS.own()
    if [*signature(PARTITIONS.get(name)).parameters][:3] == ["labels", "clients", "rng"]
    and "users" not in signature(PARTITIONS.get(name)).parameters
}
DEFAULTS = [(scheme, {}) for scheme in SCHEMES]
EXTREMES = [
    ("dirichlet", {"alpha": 1e-4}),
    ("dirichlet", {"alpha": 1e4}),
    ("dirichlet", {"alpha": 1e-300}),
    ("dirichlet", {"alpha": 1e308}),
    ("bernoulli_dirichlet", {"alpha": 1e308}),
    ("bernoulli_dirichlet", {"p": 1e-12, "alpha": 1e-4}),
    ("bernoulli_dirichlet", {"p": 1.0, "alpha": 1e4}),
    ("bernoulli_dirichlet", {"p": 0.3, "minimum": 50}),
    ("shards", {"k": 1}),
    ("shards", {"k": 10}),
]


def draw(scheme, fields=None, clients=20, labels=LABELS, seed=0):
    return partition(labels, clients, PARTITIONS.choose(scheme, fields), np.random.default_rng(seed))


def assert_lawful(parts, covered, clients):
    """C sorted, non-empty, disjoint lists; together the indices ``covered``."""
    assert len(parts) == clients
    assert all(len(part) and part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.unique(covered))


@pytest.mark.parametrize(("scheme", "fields"), DEFAULTS + EXTREMES)
def test_parts_are_disjoint_non_empty_and_cover_everything(scheme, fields):
    assert_lawful(draw(scheme, fields), np.arange(1437), 20)


@given(
    scheme=st.sampled_from(sorted(SCHEMES)),
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array),
    clients=st.integers(1, 60),
    alpha=st.floats(1e-5, 1e5),
    p=st.floats(1e-3, 1),
    k=st.integers(1, 6),
    minimum=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=300, deadline=None, database=None)
def test_any_input_is_partitioned_or_refused(scheme, labels, clients, alpha, p, k, minimum, seed):
    """Refused exactly when it cannot be: too few samples, too few classes, or a class smaller than its holders."""
    known = SCHEMES[scheme].__kwdefaults__ or {}
    every = {"alpha": alpha, "p": p, "k": k, "minimum": minimum}
    fields = {name: value for name, value in every.items() if name in known}
    sizes = np.unique(labels, return_counts=True)[1]
    least, most = clients * k // len(sizes), -(-clients * k // len(sizes))  # holders of a class
    assume(scheme != "shards" or not least <= sizes.min() < most)  # there it depends on which class gets one more
    impossible = clients * fields.get("minimum", 1) > len(labels)
    if impossible or (scheme == "shards" and (k > len(sizes) or least > sizes.min())):
        with pytest.raises(BadInput):
            draw(scheme, fields, clients, labels, seed)
        return
    parts = draw(scheme, fields, clients, labels, seed)
    covered = (
        np.sort(np.concatenate(parts)) if scheme == "shards" and clients * k < len(sizes) else np.arange(len(labels))
    )
    assert_lawful(parts, covered, clients)
    assert min(map(len, parts)) >= fields.get("minimum", 1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_as_many_clients_as_samples_end_with_one_sample_each(scheme):
    labels = np.arange(60) % 6
    fields = {name: 1 for name in ("k", "minimum") if name in (SCHEMES[scheme].__kwdefaults__ or {})}
    assert [len(part) for part in draw(scheme, fields, 60, labels)] == [1] * 60


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_generator_alone_decides(scheme):
    same, again, other = draw(scheme, seed=1), draw(scheme, seed=1), draw(scheme, seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(same, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(same, other, strict=True))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_labels_are_left_alone_and_may_skip_numbers(scheme):
    labels = np.random.default_rng(0).choice([3, 7, 90], 200)
    before = labels.copy()
    assert_lawful(draw(scheme, clients=5, labels=labels), np.arange(200), 5)
    assert np.array_equal(labels, before)


def test_iid_sizes_differ_by_at_most_one():
    sizes = sorted(len(part) for part in draw("iid"))
    assert sizes == [71] * 3 + [72] * 17  # 1437 = 20 * 71 + 17


def test_dirichlet_extremes_are_one_owner_per_class_and_an_even_split():
    counts = class_counts(LABELS, draw("dirichlet", {"alpha": 1e-6, "minimum": 1}, 3), 10)
    assert (counts.max(0) == counts.sum(0)).all()
    counts = class_counts(LABELS, draw("dirichlet", {"alpha": 1e8}), 10)
    assert (np.abs(counts - counts.sum(0) / 20) <= 1.01).all()


def test_dirichlet_shares_have_the_moments_of_the_dirichlet_law():
    """Share of one of N clients: mean 1/N, variance (N - 1) / (N^2 (N a + 1)); here N = 4, a = 0.5, 2000 classes."""
    labels = np.repeat(np.arange(2000), 200)
    shares = class_counts(labels, draw("dirichlet", {"alpha": 0.5, "minimum": 1}, 4, labels), 2000) / 200  # [C, K]
    assert shares.mean(1) == pytest.approx([0.25] * 4, abs=0.025)  # standard error 0.0056
    assert shares.var(1) == pytest.approx([3 / 48] * 4, rel=0.1)


def test_repair_takes_no_more_than_is_missing():
    """Tiny alpha, one class: one client has everything, the others get exactly the minimum, the rest stays."""
    sizes = sorted(len(part) for part in draw("dirichlet", {"alpha": 1e-6, "minimum": 7}, 5, np.zeros(100, np.int64)))
    assert sizes == [7, 7, 7, 7, 72]


@pytest.mark.parametrize("p", [0.05, 0.3, 0.7, 1.0])
def test_bernoulli_number_of_classes_follows_the_law_conditioned_on_a_client_not_being_empty(p):
    """E[classes | not zero] = K p / (1 - (1 - p)^K), and every class is equally likely to be held."""
    classes, clients = 10, 400
    labels = np.repeat(np.arange(classes), 40 * clients)
    held = class_counts(labels, draw("bernoulli_dirichlet", {"p": p}, clients, labels), classes) > 0
    assert held.sum(1).mean() == pytest.approx(classes * p / (1 - (1 - p) ** classes), rel=0.06)
    chance = p / (1 - (1 - p) ** classes)
    assert held.mean(0) == pytest.approx([chance] * classes, abs=4.5 * (chance * (1 - chance) / clients) ** 0.5 + 1e-9)


def test_bernoulli_class_counts_are_multinomial_around_an_even_share():
    """p = 1, huge alpha: n_kc ~ Binomial(n_c, 1/N), mean 200, variance 160; cut at the shares, it would be 0."""
    labels = np.repeat(np.arange(200), 1000)
    counts = class_counts(labels, draw("bernoulli_dirichlet", {"p": 1, "alpha": 1e8}, 5, labels), 200)
    assert counts.mean() == 200
    assert counts.var() == pytest.approx(160, rel=0.2)


@pytest.mark.parametrize(("clients", "k"), [(20, 2), (7, 3), (13, 9), (3, 10), (50, 5)])
def test_shards_have_k_distinct_classes_and_even_splits(clients, k):
    counts = class_counts(LABELS, draw("shards", {"k": k}, clients), 10)
    assert ((counts > 0).sum(1) == k).all()
    holders = (counts > 0).sum(0)
    assert holders.max() - holders.min() <= 1
    for column in counts.T:
        assert np.ptp(column[column > 0]) <= 1


def test_shards_leave_classes_out_only_when_there_are_too_few_places():
    counts = class_counts(LABELS, draw("shards", {"k": 2}, 3), 10)
    assert (counts.sum(0) > 0).sum() == 6


def test_shards_are_not_blocks_of_clients_with_the_same_classes():
    """PFLlib's 'pat' gives neighbours the same classes; here two neighbours agree as seldom as any two clients do.

    20 clients, 2 of 10 classes: two random pairs are equal with chance 1/45; a block scheme has chance near 1.
    """
    equal, pairs = 0, []
    for seed in range(40):
        held = class_counts(LABELS, draw("shards", seed=seed), 10) > 0
        equal += (held[1:] == held[:-1]).all(1).sum()
        pairs += [tuple(np.flatnonzero(row)) for row in held]
    assert equal / (40 * 19) < 3 / 45
    assert len(set(pairs)) == 45  # every pair of classes occurs


@pytest.mark.parametrize(
    ("scheme", "fields", "clients", "message"),
    [
        ("dirichlt", {}, 5, r"^partition = dirichlt: choose from .*\(did you mean dirichlet\?\)$"),
        ("dirichlet", {"alhpa": 1}, 5, r"^partition \w+\.alhpa = 1: unknown field; .*did you mean alpha"),
        ("dirichlet", {"alpha": 0}, 5, r"^partition \w+\.alpha = 0: .*greater than 0"),
        ("dirichlet", {"alpha": "nan"}, 5, r"^partition \w+\.alpha = nan: "),
        ("dirichlet", {"minimum": 0}, 5, r"^partition \w+\.minimum = 0: .*greater than or equal to 1"),
        ("dirichlet", {"minimum": 300}, 5, r"^partition\.minimum = 300: at most 287 with 5 clients$"),
        ("bernoulli_dirichlet", {"p": 1.5}, 5, r"^partition \w+\.p = 1\.5: .*less than or equal to 1"),
        ("shards", {"k": 11}, 5, r"^partition\.k = 11: at most 10, the number of classes$"),
        ("shards", {"k": 2}, 1000, r"^partition\.k = 2: too large for 1000 clients: a class of \d+ needs 200$"),
        ("iid", {}, 1438, r"^clients = 1438: at most 1437, the number of training samples$"),
        ("iid", {}, 0, r"^clients = 0: at least 1$"),
        ("iid", {"alpha": 1}, 5, r"^partition \w+\.alpha = 1: unknown field; it has no fields$"),
    ],
)
def test_bad_input_names_field_value_and_what_is_allowed(scheme, fields, clients, message):
    with pytest.raises(BadInput, match=message):
        draw(scheme, fields, clients)


def test_text_as_typed_is_a_value():
    typed, meant = draw("dirichlet", {"alpha": "0.3", "minimum": "5"}), draw("dirichlet", {"alpha": 0.3, "minimum": 5})
    assert all(np.array_equal(a, b) for a, b in zip(typed, meant, strict=True))


def test_local_test_counts_worked_by_hand():
    """100 training and 30 test images. A: 20 samples, 11 + 6 + 3, so 6 seats, quotas 3.3, 1.8, 0.9: 3, 2, 1.

    B: 3 samples, 2 + 1 + 0, so 1 seat, quotas 2/3 and 1/3: 1, 0, 0. C: 1 sample, 0.3 seats, but never empty: 1.
    """
    train = np.repeat([0, 1, 2], [60, 20, 20])
    test = np.repeat([0, 1, 2], [10, 10, 10])
    parts = [np.r_[0:11, 60:66, 80:83], np.r_[11:13, 66], np.array([99])]
    tests = local_tests(train, parts, test, np.random.default_rng(0))
    assert class_counts(test, tests, 3).tolist() == [[3, 2, 1], [1, 0, 0], [0, 0, 1]]


def test_a_tie_of_remainders_is_drawn_by_lot():
    """One seat for two classes of one sample each: either may get it, so that no class number is favoured."""
    train, test, parts = np.array([0, 1, 0, 1]), np.array([0, 1]), [np.array([0, 1])]
    chosen = [local_tests(train, parts, test, np.random.default_rng(seed))[0].tolist() for seed in range(30)]
    assert [0] in chosen
    assert [1] in chosen
    assert all(len(images) == 1 for images in chosen)


@given(st.sampled_from(DEFAULTS + EXTREMES), st.integers(0, 2**32), st.integers(2, 40))
@settings(max_examples=80, deadline=None, database=None)
def test_local_tests_follow_the_training_law(case, seed, clients):
    """Sorted, no repeats, never empty; size n_k n_test / n_train to the nearest, each class within one of its quota.

    Only a client that wants more of a class than the whole test set has gets less.
    """
    assume(case[1].get("minimum", 0) * clients <= len(LABELS))
    test = LABELS[::3]
    parts = draw(*case, clients, seed=seed)
    tests = local_tests(LABELS, parts, test, np.random.default_rng(seed))
    assert all(len(chosen) and (np.diff(chosen) > 0).all() for chosen in tests)
    counts, held, there = class_counts(test, tests, 10), class_counts(LABELS, parts, 10), np.bincount(test)
    wanted = np.array([[max(1, round(len(part) * len(test) / len(LABELS)))] for part in parts])
    quota = wanted * held / held.sum(1, keepdims=True)
    assert (counts < quota + 1).all()
    assert (counts > np.minimum(quota, there) - 1).all()
    capped = (counts == there).any(1)
    assert (counts.sum(1) == wanted[:, 0])[~capped].all()
    assert (counts.sum(1) <= wanted[:, 0]).all()


def test_local_tests_are_small_in_distance_to_the_training_law():
    parts = draw("dirichlet", {"alpha": 0.3})
    test = np.repeat(np.arange(10), 100)
    tests = local_tests(LABELS, parts, test, np.random.default_rng(0))
    trained, tested = class_counts(LABELS, parts, 10), class_counts(test, tests, 10)
    gaps = np.abs(trained / trained.sum(1, keepdims=True) - tested / tested.sum(1, keepdims=True)).sum(1) / 2
    assert (gaps <= 10 / 4 / tested.sum(1)).all()  # K/4 seats: the most that largest remainder can move
    assert gaps.mean() < 0.03


def test_local_tests_take_at_most_what_is_there_and_are_independent_across_clients():
    train, parts = np.zeros(30, np.int64), [np.arange(10), np.arange(10, 20), np.arange(20, 30)]
    test = np.repeat([0, 1], [4, 56])  # 20 seats each, but only 4 images of class 0
    assert [t.tolist() for t in local_tests(train, parts, test, np.random.default_rng(0))] == [[0, 1, 2, 3]] * 3
    test = np.zeros(60, np.int64)
    first, second, _ = local_tests(train, parts, test, np.random.default_rng(0))
    assert 0 < len(np.intersect1d(first, second)) < 20


def test_a_class_without_test_images_is_left_out_and_a_client_of_such_classes_refused():
    train, test = np.array([0, 0, 0, 1, 2, 2]), np.array([1, 2, 1, 2])
    (chosen,) = local_tests(train, [np.array([0, 1, 2, 3])], test, np.random.default_rng(0))
    assert set(test[chosen]) == {1}
    with pytest.raises(
        BadInput, match=r"^partition = client 1 with classes \[0\]: the test set has none of its classes$"
    ):
        local_tests(train, [np.array([3, 4]), np.array([0, 1])], test, np.random.default_rng(0))


@given(st.sampled_from(DEFAULTS + EXTREMES), st.floats(0, 0.99), st.integers(0, 2**32))
@settings(max_examples=80, deadline=None, database=None)
def test_hold_out_splits_each_client_by_class(case, fraction, seed):
    parts = draw(*case, seed=seed)
    kept, held = hold_out(parts, LABELS, fraction, np.random.default_rng(seed))
    for part, stays, goes in zip(parts, kept, held, strict=True):
        assert np.array_equal(np.sort(np.concatenate([stays, goes])), part)
        assert (np.diff(stays) > 0).all()
        assert (np.diff(goes) > 0).all()
        assert len(stays) >= 1
        assert len(goes) == min(max(round(fraction * len(part)), fraction > 0), len(part) - 1)
        share = np.bincount(LABELS[part], minlength=10) / len(part)
        assert (np.abs(np.bincount(LABELS[goes], minlength=10) - share * len(goes)) < 1).all()


def test_hold_out_edge_cases():
    one, two = np.array([4]), np.array([1, 2])
    kept, held = hold_out([one, two], LABELS, 0.9, np.random.default_rng(0))
    assert [len(k) for k in kept] == [1, 1]
    assert [len(h) for h in held] == [0, 1]
    assert held[0].dtype == np.int64
    kept, held = hold_out([one, two], LABELS, 0.01, np.random.default_rng(0))
    assert [len(h) for h in held] == [0, 1]
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(BadInput, match=r"^validation = .*: at least 0 and less than 1"):
            hold_out([one, two], LABELS, fraction, np.random.default_rng(0))


def test_label_distance_by_hand():
    labels = np.arange(100) % 10
    one_class = [np.flatnonzero(labels == c) for c in range(10)]
    assert label_distance(labels, one_class) == pytest.approx(0.9)  # 1 - 1/K
    assert label_distance(labels, [np.arange(50), np.arange(50, 100)]) == 0
    uneven = np.array([0, 0, 0, 1])  # law (3/4, 1/4); clients (1, 0) and (1/2, 1/2): distances 1/4 and 1/4
    assert label_distance(uneven, [np.array([0, 1]), np.array([2, 3])]) == pytest.approx(0.25)
    many = np.arange(100_000) % 10
    assert label_distance(many, draw("iid", {}, 10, many)) < 0.02
    skews = [label_distance(LABELS, draw("dirichlet", {"alpha": alpha})) for alpha in (0.01, 0.3, 1, 100)]
    assert skews == sorted(skews, reverse=True)


def test_class_counts_by_hand():
    counts = class_counts(np.array([2, 0, 2, 1]), [np.array([0, 2]), np.array([1, 3])], 4)
    assert counts.tolist() == [[0, 0, 2, 0], [1, 1, 0, 0]]
