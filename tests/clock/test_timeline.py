"""The clock: runs worked out by hand, the bounds on the gain, and who may influence what."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pflbench.clock import fleet as fleets
from pflbench.clock.fleet import FLEETS, Fleet, build_fleet, load_fleet
from pflbench.clock.gantt import _rows, _without, draw_gantt
from pflbench.clock.timeline import PROTOCOLS, Timeline, compare, gain, gain_bound, personal_budget, simulate
from pflbench.core.errors import BadInput

STAGES = ("download", "generic", "upload", "wait", "personal")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def make_record(clients, cohorts, contribute, personalise, down=1000, up=1000) -> dict[str, Any]:
    costs = {"contribute": contribute, "personalise": personalise, "down": down, "up": up, "bytes_per_number": 4}
    return {"experiment": {"clients": clients}, "cohorts": cohorts, "costs": costs}


def make_fleet(contribute_s, personalise_s, down_bps, up_bps, latency_s, aggregation_s=0.0, **chance) -> Fleet:
    arrays = (np.array(x, dtype=float) for x in (contribute_s, personalise_s, down_bps, up_bps, latency_s))
    chance = {"compute_jitter": 0.0, "network_jitter": 0.0, "dropout": 0.0, **chance}
    return Fleet("test", *arrays, aggregation_s, **chance, sources={})


def rows(timeline: Timeline, round: int) -> dict[str, list[list[float]]]:
    return {stage: getattr(timeline.rounds[round], stage).tolist() for stage in STAGES}


# Runs worked out by hand

# 1000 numbers of 4 bytes are 32 000 bits: 2 s down, 4 s up, each plus 0.5 s latency. T_g = 2 * 3 = 6, T_p = 5 * 2 = 10,
# T_c = 4.5 up + 0 for others + 1 aggregation + 2.5 down = 8.
ONE = make_fleet([3], [2], [16_000], [8_000], [0.5], aggregation_s=1.0)
ONE_RUN = make_record(1, [[0], [0]], [[2], [2]], [[5], [5]])


def test_one_client_by_hand():
    wait, free = compare(ONE_RUN, ONE, rng=rng()).values()
    # download 2.5, generic 6, personal 10, upload 4.5, aggregation 1: a round of 24 = T_g + T_p + T_c
    first = {"download": [[0, 2.5]], "generic": [[2.5, 8.5]], "personal": [[8.5, 18.5]], "upload": [[18.5, 23]]}
    assert rows(wait, 0) == {**first, "wait": [[23, 24]]}
    assert {k: np.subtract(v, 24).tolist() for k, v in rows(wait, 1).items()} == rows(wait, 0)
    assert wait.ends.tolist() == [24, 48]
    # the upload leaves at 8.5, the model is ready at 14 and there at 16.5, but the personal stage lasts until 18.5
    first = {"download": [[0, 2.5]], "generic": [[2.5, 8.5]], "personal": [[8.5, 18.5]], "upload": [[8.5, 13]]}
    assert rows(free, 0) == {**first, "wait": [[13, 14]]}
    # so the generic stages are 16 = T_g + max(T_p, T_c) apart
    second = {"download": [[14, 16.5]], "generic": [[18.5, 24.5]], "personal": [[24.5, 34.5]], "upload": [[24.5, 29]]}
    assert rows(free, 1) == {**second, "wait": [[29, 30]]}
    assert free.ends.tolist() == [18.5, 34.5]
    assert gain({"compute_and_wait": wait, "wait_free": free}) == 48 / 34.5
    assert (wait.idle_share, free.idle_share) == (pytest.approx(1 / 24), 0)  # 23 of 24 busy; the processor never stops


# 1 number of 4 bytes is 32 bits. Client 0: D 1, G 2, P 9, U 1. Client 1: D 1, G 4, P 1, U 2. Aggregation 1.
TWO = make_fleet([1, 1], [1, 1], [32, 32], [32, 16], [0, 0], aggregation_s=1.0)
TWO_RUN = make_record(2, [[0, 1]] * 2, [[2, 4]] * 2, [[9, 1]] * 2, down=1, up=1)


def test_two_uneven_clients_by_hand():
    wait, free = compare(TWO_RUN, TWO, rng=rng()).values()
    assert rows(wait, 0) == {
        "download": [[0, 1], [0, 1]],
        "generic": [[1, 3], [1, 5]],
        "personal": [[3, 12], [5, 6]],
        "upload": [[12, 13], [6, 8]],
        "wait": [[13, 14], [8, 14]],  # client 0 is last, at 13, and the aggregation takes 1
    }
    assert wait.ends.tolist() == [14, 28]
    assert wait.idle_share == pytest.approx(1 - (13 + 8) / (14 + 14))
    assert rows(free, 0) == {
        "download": [[0, 1], [0, 1]],
        "generic": [[1, 3], [1, 5]],
        "personal": [[3, 12], [5, 6]],
        "upload": [[3, 4], [5, 7]],  # client 1 is last, at 7
        "wait": [[4, 8], [7, 8]],
    }
    assert rows(free, 1) == {
        "download": [[8, 9], [8, 9]],
        "generic": [[12, 14], [12, 16]],  # both wait for the personal stage of client 0
        "personal": [[14, 23], [16, 17]],
        "upload": [[14, 15], [16, 18]],
        "wait": [[15, 19], [18, 19]],
    }
    assert free.ends.tolist() == [12, 23]
    assert free.rounds[1].aggregation.tolist() == [18, 19]
    # client 0 works from 0 to 23; client 1 is there from 0 to 19, busy in [0, 7], [8, 9] and [12, 18]
    assert free.idle_share == pytest.approx(1 - (23 + 14) / (23 + 19))


def test_block_client_waits_for_nobody_else():
    free = simulate(TWO_RUN, TWO, "wait_free", rng=rng(), block="client")
    assert free.rounds[1].generic.tolist() == [[12, 14], [9, 13]]
    assert free.rounds[1].aggregation.tolist() == [15, 16]
    assert free.ends.tolist() == [12, 23]


def test_block_client_has_no_bound_of_two():
    # Four clients take turns, G = 1, P = 3, nothing to send. Compute-and-wait: 8 rounds of 4. On its own, each client is
    # free again when its turn comes: the last of 8 generic stages ends at 8, its personal stage at 11.
    fleet = make_fleet([1] * 4, [1] * 4, [1] * 4, [1] * 4, [0] * 4)
    record = make_record(4, [[r % 4] for r in range(8)], [[1]] * 8, [[3]] * 8, down=0, up=0)
    assert gain(compare(record, fleet, rng=rng(), block="client")) == 32 / 11
    assert gain(compare(record, fleet, rng=rng(), block="round")) == 1


def test_bytes_by_hand():
    wait, free = compare(make_record(2, [[0, 1], [1]], [[1, 1], [1]], [[1, 1], [1]], 10, 7), TWO, rng=rng()).values()
    assert (wait.down_bytes, wait.up_bytes) == (3 * 10 * 4, 3 * 7 * 4) == (free.down_bytes, free.up_bytes)


def test_absent_clients_cost_nothing():
    fleet = replace(TWO, dropout=0.5)
    record = make_record(2, [[0, 1]] * 40, [[2, 4]] * 40, [[9, 1]] * 40, down=1, up=1)
    for timeline in compare(record, fleet, rng=rng(3)).values():
        present = [each.clients.tolist() for each in timeline.rounds]
        assert {tuple(each) for each in present} == {(), (0,), (1,), (0, 1)}
        assert timeline.up_bytes == 4 * sum(map(len, present))
        empty = [i for i, each in enumerate(present) if not each]
        assert all(np.ptp(timeline.rounds[i].aggregation) == 0 for i in empty)
        alone = next(each for each in timeline.rounds if each.clients.tolist() == [0])
        assert alone.wait[0, 1] - alone.upload[0, 1] == 1  # nobody to wait for, only the aggregation


def test_idle_share_counts_only_rounds_attended():
    # Client 1 sits out round 1: it is there for [0, 14] of 28, busy 8 of them; client 0 is busy 13 of 14, twice.
    record = make_record(2, [[0, 1], [0]], [[2, 4], [2]], [[9, 1], [9]], down=1, up=1)
    assert simulate(record, TWO, "compute_and_wait", rng=rng()).idle_share == pytest.approx(1 - (26 + 8) / (28 + 14))


# Bounds, over random fleets and records

amounts = st.floats(0, 10, allow_subnormal=False)


@st.composite
def worlds(draw: st.DrawFn, steady: bool = False) -> tuple[dict[str, Any], Fleet]:
    """A record and a fleet; ``steady``: everybody takes part in every round, and every round costs the same."""
    clients, rounds = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    per_client = st.lists(amounts, min_size=clients, max_size=clients)
    speeds = st.lists(st.floats(1e2, 1e6), min_size=clients, max_size=clients)
    chance = {"compute_jitter": st.floats(0, 1), "network_jitter": st.floats(0, 1), "dropout": st.floats(0, 0.5)}
    fleet = make_fleet(
        *(draw(per_client) for _ in range(2)),
        *(draw(speeds) for _ in range(2)),
        draw(per_client),
        draw(amounts),
        **({} if steady else {name: draw(value) for name, value in chance.items()}),
    )
    everyone = list(range(clients))
    some = st.sets(st.sampled_from(everyone)).map(sorted)
    cohorts = [everyone if steady else draw(some) for _ in range(rounds)]
    batches = st.lists(st.integers(0, 9), min_size=clients, max_size=clients)
    contribute, personalise = (
        [draw(batches)] * rounds if steady else [draw(batches)[: len(cohort)] for cohort in cohorts] for _ in range(2)
    )
    numbers = st.sampled_from([0, 1, 1000])
    return make_record(clients, cohorts, contribute, personalise, draw(numbers), draw(numbers)), fleet


@settings(deadline=None, max_examples=300)
@given(worlds(), st.integers(0, 9))
def test_gain_lies_between_one_and_two(world, seed):
    record, fleet = world
    assert 1 <= gain(compare(record, fleet, rng=rng(seed))) <= 2 + 1e-12


@settings(deadline=None, max_examples=300)
@given(worlds(), st.integers(0, 9))
def test_wait_free_is_never_later(world, seed):
    record, fleet = world
    wait, free = compare(record, fleet, rng=rng(seed)).values()
    alone = simulate(record, fleet, "wait_free", rng=rng(seed), block="client")
    assert (alone.ends <= free.ends).all()
    assert (free.ends <= wait.ends).all()
    for slow, fast in zip(wait.rounds, free.rounds, strict=True):
        assert all((getattr(fast, stage) <= getattr(slow, stage)).all() for stage in (*STAGES, "aggregation"))


@settings(deadline=None, max_examples=200)
@given(worlds(steady=True))
def test_two_also_bounds_block_client_when_every_round_is_the_same(world):
    record, fleet = world
    assert 1 <= gain(compare(record, fleet, rng=rng(), block="client")) <= 2 + 1e-12


@settings(deadline=None, max_examples=100)
@given(worlds(), st.sampled_from(["round", "client"]))
def test_protocols_are_equal_when_there_is_no_personal_work(world, block):
    record, fleet = world
    record["costs"]["personalise"] = [[0] * len(cohort) for cohort in record["cohorts"]]
    timelines = compare(record, fleet, rng=rng(), block=block)
    assert gain(timelines) == 1.0
    for slow, fast in zip(*(timelines[protocol].rounds for protocol in PROTOCOLS), strict=True):
        assert all(np.array_equal(getattr(slow, stage), getattr(fast, stage)) for stage in (*STAGES, "aggregation"))


def test_protocols_are_equal_when_nothing_is_sent():
    record = make_record(2, [[0, 1]] * 3, [[0, 0]] * 3, [[9, 1]] * 3, down=0, up=0)  # local-only
    assert gain(compare(record, TWO, rng=rng())) == 1.0


@settings(deadline=None, max_examples=100)
@given(worlds(), st.sampled_from(PROTOCOLS), st.data())
def test_time_is_additive_over_rounds(world, protocol, data):
    record, fleet = world
    rounds = data.draw(st.integers(1, len(record["cohorts"])))
    costs = {key: value[:rounds] if isinstance(value, list) else value for key, value in record["costs"].items()}
    prefix = {**record, "cohorts": record["cohorts"][:rounds], "costs": costs}
    whole, part = (simulate(one, fleet, protocol, rng=rng(1)) for one in (record, prefix))
    assert part.ends.tolist() == whole.ends[:rounds].tolist()
    for ours, theirs in zip(part.rounds, whole.rounds, strict=False):
        assert all(np.array_equal(getattr(ours, stage), getattr(theirs, stage)) for stage in (*STAGES, "aggregation"))


@pytest.mark.parametrize(("numbers", "personal"), [(900_000, 60), (900_000, 20), (11_000_000, 20), (0, 20)])
@pytest.mark.parametrize("block", ["round", "client"])
def test_equal_clients_follow_the_closed_form(numbers, personal, block):
    fleet = build_fleet(load_fleet("homogeneous"), 4, rng())
    rounds = 50
    everyone = [[0, 1, 2, 3]] * rounds
    record = make_record(4, everyone, [[20] * 4] * rounds, [[personal] * 4] * rounds, numbers, numbers)
    transfer = 0.05 + numbers * 32 / 20e6 if numbers else 0.0
    t_g, t_p, t_c = 2.0, personal / 10, transfer + (0.1 if numbers else 0) + transfer
    wait, free = compare(record, fleet, rng=rng(), block=block).values()
    starts = {t.protocol: np.diff([each.generic[0, 0] for each in t.rounds]) for t in (wait, free)}
    assert starts["compute_and_wait"] == pytest.approx(t_g + t_p + t_c)
    assert starts["wait_free"] == pytest.approx(t_g + max(t_p, t_c))
    # over the whole run the first download comes on top, and the last T_c has none
    assert wait.total_s == pytest.approx(rounds * (t_g + t_p + t_c))
    last = t_g + max(t_p, t_c - transfer)
    assert free.total_s == pytest.approx(transfer + (rounds - 1) * (t_g + max(t_p, t_c)) + last)
    steady = starts["compute_and_wait"].mean() / starts["wait_free"].mean()
    assert gain_bound(t_g, t_p, t_c) == pytest.approx(steady)


def test_gain_bound_by_hand():
    assert gain_bound(6, 10, 8) == 24 / 16
    assert gain_bound(0, 3, 3) == 2
    assert gain_bound(0, 0, 0) == 1
    assert gain_bound([1, 1], [0, 1], 1).tolist() == [1, 1.5]


# Chance


def test_the_same_generator_gives_the_same_draws_to_both_protocols():
    fleet = replace(TWO, compute_jitter=0.5, network_jitter=0.5, dropout=0.3)
    record = make_record(2, [[0, 1]] * 20, [[2, 4]] * 20, [[9, 1]] * 20, down=1, up=1)
    source = rng(5)
    before = source.bit_generator.state
    wait, free = compare(record, fleet, rng=source).values()
    assert source.bit_generator.state == before
    for slow, fast in zip(wait.rounds, free.rounds, strict=True):
        assert slow.clients.tolist() == fast.clients.tolist()
        for stage in ("download", "generic", "upload", "personal"):
            lengths = [np.diff(getattr(each, stage)) for each in (slow, fast)]
            assert np.allclose(*lengths, rtol=1e-9)
    again = simulate(record, fleet, "wait_free", rng=rng(5))
    assert again.ends.tolist() == free.ends.tolist()
    assert simulate(record, fleet, "wait_free", rng=rng(6)).total_s != free.total_s


def test_a_draw_belongs_to_a_round_and_a_client():
    fleet = replace(TWO, compute_jitter=0.5, network_jitter=0.5)
    both = make_record(2, [[0, 1]] * 3, [[2, 4]] * 3, [[9, 1]] * 3, down=1, up=1)
    one = make_record(2, [[1]] * 3, [[4]] * 3, [[1]] * 3, down=1, up=1)
    for ours, theirs in zip(*(simulate(r, fleet, "wait_free", rng=rng(2)).rounds for r in (both, one)), strict=True):
        assert np.allclose(np.diff(ours.generic)[1], np.diff(theirs.generic)[0])
        assert np.allclose(np.diff(ours.upload)[1], np.diff(theirs.upload)[0])
    lengths = {float(np.diff(each.generic)[1, 0]) for each in simulate(both, fleet, "wait_free", rng=rng(2)).rounds}
    assert len(lengths) == 3  # jitter is drawn anew every round


# Cutting personal work off


def test_personal_budget_by_hand():
    # The generic stage ends at 8.5, the next model is there at 16.5: 8 s, 4 batches of 2 s out of 5.
    assert personal_budget(ONE_RUN, ONE, rng=rng()) == [[4], [4]]
    # Two clients: the next model is there at 9; client 0 has [3, 9] for 9 batches of 1 s, client 1 needs 1 of [5, 9].
    assert personal_budget(TWO_RUN, TWO, rng=rng()) == [[6, 1], [6, 1]]
    assert personal_budget(TWO_RUN, replace(TWO, dropout=1 - 1e-12), rng=rng()) == [[9, 1], [9, 1]]


@settings(deadline=None, max_examples=100)
@given(worlds(steady=True))
def test_work_within_the_budget_delays_no_one(world):
    record, fleet = world
    budget = personal_budget(record, fleet, rng=rng())
    plans = record["costs"]["personalise"]
    assert all(0 <= b <= p for cut, plan in zip(budget, plans, strict=True) for b, p in zip(cut, plan, strict=True))
    idle, cut = (
        {**record, "costs": {**record["costs"], "personalise": p}} for p in ([[0] * len(plans[0])] * len(plans), budget)
    )
    bare, tight = (simulate(one, fleet, "wait_free", rng=rng(), block="client") for one in (idle, cut))
    for ours, theirs in zip(tight.rounds, bare.rounds, strict=True):
        assert ours.aggregation == pytest.approx(theirs.aggregation)


# Fleets


@pytest.mark.parametrize("name", FLEETS.names())
def test_every_number_of_a_packaged_fleet_has_a_source(name):
    fleet = build_fleet(load_fleet(name), 30, rng())
    fields = set(load_fleet(name)) - {"name", "about"}
    assert set(fleet.sources) == fields
    assert all(source.strip() for source in fleet.sources.values())


def test_every_file_in_the_folder_of_fleets_is_one():
    folder = Path(fleets.__file__).parent / "fleets"
    assert FLEETS.names() == sorted(path.stem for path in folder.iterdir())


def test_a_fleet_is_drawn_from_its_description():
    description = load_fleet("silo")
    clients = 20_000
    fleet = build_fleet(description, clients, rng())
    speed = np.log(fleet.down_bps)
    # a median of n lognormals has a standard error of about 1.25 sigma / sqrt(n), here 0.5 %
    assert np.median(fleet.down_bps) == pytest.approx(862e6, rel=0.02)
    assert speed.std() == pytest.approx(0.5, rel=0.03)
    assert np.corrcoef(speed, np.log(fleet.up_bps))[0, 1] == pytest.approx(1)
    assert abs(np.corrcoef(speed, np.log(fleet.contribute_s))[0, 1]) < 0.03
    assert np.allclose(fleet.personalise_s, fleet.contribute_s)
    classes = [{"median": 1, "share": 0.25, "source": "a"}, {"median": 4, "share": 0.75, "source": "b"}]
    mixed = build_fleet({**description, "slowdown": classes}, clients, rng())
    assert set(np.round(mixed.contribute_s / 0.005, 9)) == {1, 4}
    assert (mixed.contribute_s < 0.01).mean() == pytest.approx(0.25, abs=0.015)
    assert mixed.sources["slowdown"] == "a | b"


def test_an_own_fleet_is_read_by_its_path(tmp_path):
    path = tmp_path / "mine.yaml"
    content = {**load_fleet("lte"), "aggregation_s": {"value": 2, "source": "measured"}}
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if key != "name"}))
    fleet = build_fleet(load_fleet(str(path)), 3, rng())
    assert (fleet.name, fleet.aggregation_s, fleet.sources["aggregation_s"]) == ("mine", 2, "measured")


def changed(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in {**load_fleet("silo"), **fields}.items() if value is not None}


SOURCE = {"source": "test"}
BAD = {
    "negative bandwidth": (changed(up_mbit_per_s={"median": -3, **SOURCE}), "silo.up_mbit_per_s.median = -3"),
    "no bandwidth": (changed(up_mbit_per_s={"median": 0, **SOURCE}), "silo.up_bps = 0.0: must be finite and > 0"),
    "missing field": (changed(latency_s=None), "silo.latency_s = missing"),
    "missing median": (changed(latency_s={"sigma": 1, **SOURCE}), "silo.latency_s.median = missing"),
    "missing source": (changed(dropout={"value": 0}), "silo.dropout.source = missing"),
    "empty source": (changed(dropout={"value": 0, "source": " "}), "silo.dropout.source = empty"),
    "a bare number": (changed(dropout=0.5), "silo.dropout = 0.5: needs the fields of a Number"),
    "certain drop-out": (changed(dropout={"value": 1, **SOURCE}), "silo.dropout = 1.0: must be >= 0 and < 1"),
    "unknown field": (changed(latncy_s=1), "did you mean latency_s?"),
    "unknown key": (changed(latency_s={"median": 1, "mean": 1, **SOURCE}), "silo.latency_s.mean = 1: unknown field"),
    "shares": (changed(slowdown=[{"median": 1, "share": 0.5, **SOURCE}]), "the shares of the classes must sum to 1"),
    "no classes": (changed(slowdown=[]), "the shares of the classes must sum to 1"),
    "not finite": (changed(slowdown={"median": float("inf"), **SOURCE}), "silo.slowdown.median = inf"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_fleet_is_refused_in_one_clear_line(case):
    description, message = BAD[case]
    with pytest.raises(BadInput) as error:
        build_fleet(description, 3, rng())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_or_broken_fleet_file_is_refused_in_one_clear_line(tmp_path):
    (tmp_path / "broken.yaml").write_text("a: [1\nb: 2")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    cases = {
        "ltee": f"choose from {', '.join(FLEETS.names())} (did you mean lte?)",
        str(tmp_path / "none.yaml"): "cannot be read",
        str(tmp_path / "broken.yaml"): "is not YAML",
        str(tmp_path / "list.yaml"): "must hold `field: value` lines",
    }
    for name, message in cases.items():
        with pytest.raises(BadInput) as error:
            load_fleet(name)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_a_fleet_of_another_size_and_unknown_words_are_refused():
    with pytest.raises(BadInput, match="clients of fleet test = 1: the record has 2"):
        simulate(TWO_RUN, ONE, "wait_free", rng=rng())
    with pytest.raises(BadInput, match="choose from compute_and_wait, wait_free"):
        simulate(TWO_RUN, TWO, "waitfree", rng=rng())  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="choose from client, round"):
        simulate(TWO_RUN, TWO, "wait_free", rng=rng(), block="all")  # type: ignore[arg-type]


# The chart


def test_the_chart_shows_the_slowest_the_fastest_and_some_between():
    clients = 30
    fleet = make_fleet(np.arange(clients) + 1, [1] * clients, [1] * clients, [1] * clients, [0] * clients)
    record = make_record(clients, [list(range(clients))], [[1] * clients], [[1] * clients], down=0, up=0)
    shown = _rows(simulate(record, fleet, "wait_free", rng=rng()).rounds)
    assert len(shown) == 12
    assert (shown[0], shown[-1]) == (29, 0)
    assert shown == sorted(shown, reverse=True)


def test_idle_is_what_is_left_of_the_time_attended():
    whole = np.array([[0.0, 9.0], [9.0, 20.0]])
    busy = np.array([[0, 1], [1, 5], [5, 8], [5, 6], [9, 10], [12, 19]], dtype=float)
    assert _without(whole, busy).tolist() == [[8, 9], [10, 12], [19, 20]]


def test_the_chart_embeds_its_fonts_and_is_the_same_every_time(tmp_path):
    timelines = compare(TWO_RUN, TWO, rng=rng())
    for name in ("a.pdf", "b.pdf"):
        draw_gantt(timelines, 0, tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.pdf", "b.pdf"))
    assert b"/FontFile2" in first
    assert b"/Type3" not in first
    assert first == second
    with pytest.raises(BadInput, match="must be within 0 to 1"):
        draw_gantt(timelines, 1, tmp_path / "c.pdf", count=2)
