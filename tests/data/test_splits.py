"""Partition files come back as they went, and a file that is not right is refused in one line."""

import json

import numpy as np
import pytest
from matplotlib.image import imread

from pflbench.core.errors import BadInput
from pflbench.data.partitions import PARTITIONS, local_tests, partition
from pflbench.data.schemes import class_counts
from pflbench.data.splits import Split, card_of, export_split, import_split, make_split, plot_counts

TRAIN, TEST = np.arange(300) % 10, np.arange(80) % 10


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    parts = partition(TRAIN, 6, PARTITIONS.choose("dirichlet", {"alpha": 0.3}), rng)
    tests = local_tests(TRAIN, parts, TEST, rng)
    return make_split(parts, tests, TRAIN, TEST, dataset="toy", scheme="dirichlet", fields={"alpha": 0.3}, seed=0)


def rewrite(path, **changes):
    """The file with some of its arrays replaced, everything else as it was."""
    with np.load(path) as held:
        arrays = {**held, **changes}
    np.savez_compressed(path, **arrays)


def test_a_split_comes_back_and_equal_splits_are_equal_files(tmp_path, split):
    export_split(tmp_path / "a.npz", split)
    export_split(tmp_path / "b.npz", split)
    back = import_split(tmp_path / "a.npz", 300, 80, "toy")
    assert back.card == split.card == card_of(tmp_path / "a.npz")
    for sent, got in ((split.train, back.train), (split.test, back.test)):
        assert len(sent) == len(got)
        assert all(np.array_equal(s, g) for s, g in zip(sent, got, strict=True))
        assert all(g.dtype == np.int64 for g in got)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]  # no draft stays


def test_the_card_says_what_the_indices_are(split):
    """Two clients by hand: 4 + 2 of 8 training samples, classes (2, 2) and (2, 0), overall law (3/4, 1/4)."""
    labels = np.array([0, 1, 0, 1, 0, 0, 0, 0])
    parts, tests = [np.array([0, 1, 2, 3]), np.array([4, 7])], [np.array([0, 1]), np.array([0])]
    card = make_split(parts, tests, labels, labels[:2], dataset="d", scheme="s", fields={"k": 2}, seed=7).card
    assert len(card.pop("checksum")) == 64
    assert card == {
        "dataset": "d",
        "scheme": "s",
        "fields": {"k": 2},
        "seed": 7,
        "clients": 2,
        "label_distance": 0.25,
        "train_size": 8,
        "test_size": 2,
        "train_sizes": [4, 2],
        "test_sizes": [2, 1],
        "class_counts": [[2, 2], [2, 0]],
    }


def test_the_checksum_tells_splits_apart(split):
    """Moving one index to the neighbour keeps the concatenation, not the checksum."""

    def checksum(parts):
        return make_split(parts, split.test, TRAIN, TEST, dataset="", scheme="", fields={}, seed=0).card["checksum"]

    moved = np.split(np.concatenate(split.train), np.cumsum([len(p) for p in split.train])[:-1] - 1)
    assert checksum(split.train) == split.card["checksum"] != checksum(moved)


def test_files_that_are_not_right_are_refused(tmp_path, split):
    path = tmp_path / "split.npz"

    def refused(message, sizes=(300, 80), dataset=None):
        with pytest.raises(BadInput, match=message) as caught:
            import_split(path, *sizes, dataset)
        assert str(caught.value).startswith(f"partition file = {path}: ")
        assert "\n" not in str(caught.value)

    refused("No such file")
    export_split(path, split)
    whole = path.read_bytes()
    refused("made for another data set: 300 train samples, this one has 301", (301, 80))
    refused("made for another data set: 80 test samples, this one has 81", (300, 81))
    refused("made for toy, needs one made for digits", dataset="digits")
    for content in (b"", b"not a zip", whole[: len(whole) // 2], whole[:-30], json.dumps({}).encode()):
        path.write_bytes(content)
        refused("not a whole file written by")
    with open(path, "wb") as file:
        np.save(file, np.arange(3))
    refused("not a whole file written by")
    for changes in (
        {"train": np.concatenate(split.train)[::-1]},
        {"test": np.zeros(sum(map(len, split.test)), np.int64)},
        {"train_offsets": np.cumsum([0, *map(len, split.train)]) - np.array([0, 1, 0, 0, 0, 0, 0])},
    ):
        path.write_bytes(whole)
        rewrite(path, **changes)
        refused("the checksum differs")
    for changes in ({"train": np.ones(300)}, {"card": np.array("[]")}):
        path.write_bytes(whole)
        rewrite(path, **changes)
        refused("not a file written by")
    path.write_bytes(whole)
    rewrite(path, card=np.array("{"))
    refused("not a whole file written by")


def test_any_changed_byte_is_refused_or_without_effect(tmp_path, split):
    """Every byte of the file, inverted; the zip format has some, as dates, that say nothing of the content."""
    path = tmp_path / "split.npz"
    export_split(path, split)
    whole, harmless = path.read_bytes(), 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            back = import_split(path, 300, 80)
        except BadInput:
            continue
        harmless += 1
        assert back.card == split.card
        assert all(np.array_equal(s, g) for s, g in zip(split.train + split.test, back.train + back.test, strict=True))
    assert harmless < len(whole) / 4


@pytest.mark.parametrize("change", [{"scheme": "other"}, {"seed": 7}, {"label_distance": 0.0}, {"class_counts": [[1]]}])
def test_the_card_is_under_a_checksum_too(tmp_path, split, change):
    path = tmp_path / "split.npz"
    export_split(path, split)
    with np.load(path) as held:
        card = json.loads(str(held["card"]))
    rewrite(path, card=np.array(json.dumps({**card, **change})))
    with pytest.raises(BadInput, match="the checksum differs"):
        import_split(path, 300, 80)
    rewrite(path, card=np.array(json.dumps({name: value for name, value in card.items() if name != "seal"})))
    assert import_split(path, 300, 80).card == split.card  # as they were made before


@pytest.mark.parametrize("value", [None, [], {}, "x", -1, 1.5, 10**400, True, [None], {"a": [[]]}])
@pytest.mark.parametrize("field", ["dataset", "train_size", "clients", "checksum", "seal", "fields", "class_counts"])
def test_no_card_is_a_traceback(tmp_path, split, field, value):
    path = tmp_path / "split.npz"
    export_split(path, split)
    with np.load(path) as held:
        card = json.loads(str(held["card"]))
    rewrite(path, card=np.array(json.dumps({**card, field: value})))
    with pytest.raises(BadInput) as error:
        import_split(path, 300, 80)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([[0, 1], [1, 2]], [[0], [1]], "train: an index is given to two clients"),
        ([[0, 1], [2, 300]], [[0], [1]], "train: an index is outside 0 to 299"),
        ([[0, 1], [-1, 2]], [[0], [1]], "train: an index is outside 0 to 299"),
        ([[0, 1], [2]], [[0], [80]], "test: an index is outside 0 to 79"),
        ([[0, 1], [2]], [[0], [5, 5]], "test: an index is given to a client twice"),
        ([[0, 1], []], [[0], [1]], "train: a client is empty"),
        ([[0, 1], [2]], [[], [1]], "test: a client is empty"),
        ([[0, 1], [2]], [[1]], "train, test and card differ in the number of clients"),
    ],
)
def test_a_whole_file_of_impossible_indices_is_refused(tmp_path, split, train, test, message):
    """The checksum is right here: the file was made so, on a longer data set."""
    lists = [[np.array(part, np.int64) for part in parts] for parts in (train, test)]
    with np.errstate(invalid="ignore"):
        made = make_split(*lists, np.arange(301) % 10, TEST, dataset="toy", scheme="", fields={}, seed=0)
    export_split(tmp_path / "s.npz", Split(*lists, {**made.card, "train_size": 300, "label_distance": 0}))
    with pytest.raises(BadInput, match=message):
        import_split(tmp_path / "s.npz", 300, 80)


def test_an_unwritable_place_is_refused_and_left_as_it_was(tmp_path, split):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"^output file = .*: cannot be written: "):
        export_split(tmp_path / "file" / "s.npz", split)
    (tmp_path / "file").unlink()
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(BadInput, match=r"^output file = .*: cannot be written: "):
        export_split(tmp_path / "folder.npz", split)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.npz"]


@pytest.mark.parametrize("clients", [3, 20, 100])
def test_the_figure_is_drawn_and_drawn_the_same_twice(tmp_path, clients):
    scheme = PARTITIONS.choose("dirichlet", {"minimum": 1})
    counts = class_counts(TRAIN, partition(TRAIN, clients, scheme, np.random.default_rng(0)), 10)
    for kind in ("png", "pdf", "svg") if clients == 3 else ("png",):
        first, second = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
        plot_counts(counts, first, "toy")
        plot_counts(counts, second, "toy")
        assert first.read_bytes() == second.read_bytes()
    height, width, _ = imread(tmp_path / "a.png").shape
    assert 4 * 300 <= width <= 7.2 * 300
    assert height < width


def test_the_shade_of_a_cell_follows_its_count(tmp_path):
    """One client of 40 is dark, with thirty light ones to its left."""
    counts = np.ones((40, 10), np.int64)  # 40 clients: no numbers in the cells
    counts[30] = 50
    plot_counts(counts, tmp_path / "a.png", "")
    red = imread(tmp_path / "a.png")[:, :, 0]
    dark = np.flatnonzero((red < 0.08).mean(0) > 0.5)
    light = np.flatnonzero(((red > 0.7) & (red < 0.95)).mean(0) > 0.5)
    assert len(dark) == pytest.approx(len(light) / 39, rel=0.2)
    assert (light < dark.min()).sum() == pytest.approx(30 * len(dark), rel=0.2)


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"^figure file = .*a\.jpg: the name must end in \.pdf, \.png or \.svg$"):
        plot_counts(np.ones((2, 2), np.int64), tmp_path / "a.jpg", "")
    assert not list(tmp_path.iterdir())
