"""Data sets in their official formats go through the real loaders; what is missing, damaged or unfit is refused."""

import hashlib
import io
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
from hashlib import md5
from itertools import product
from pathlib import Path

import numpy as np
import official
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torchvision import datasets as torchvision_sets
from torchvision.transforms import CenterCrop, Resize

from pflbench.cli import main
from pflbench.core.errors import BadInput
from pflbench.core.fields import canonical
from pflbench.data import datasets, images, prepared, samples
from pflbench.data.datasets import DATASETS
from pflbench.data.sets import hf, inaturalist

IMAGES = (60, 20)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No network, and no bars."""
    import datasets

    def refuse(*arguments, **named):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # without it, the hub is asked five times
    datasets.disable_progress_bars()


def same(one, other):
    """Whether two data sets hold the same bits."""
    names = ("train_x", "train_y", "test_x", "test_y")
    bits = all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)
    return bits and (one.classes, one.mean, one.std) == (other.classes, other.mean, other.std)


def refused(message, *arguments, ask=datasets.prepare):
    with pytest.raises(BadInput, match=message) as caught:
        ask(*arguments)
    assert "\n" not in str(caught.value)


def left(root):
    """What lies in the folder of prepared data, hidden files too."""
    return sorted(path.name for path in (root / "prepared").glob("*")) if (root / "prepared").exists() else []


# How a data set is written down


@pytest.mark.parametrize(
    ("text", "name", "fields"),
    [
        ("digits", "digits", {}),
        ("hf:flwrlabs/femnist", "hf", {"path": "flwrlabs/femnist"}),
        ("hf:flwrlabs/femnist,size=28", "hf", {"path": "flwrlabs/femnist", "size": "28"}),
        ("hf:path=a/b,image=img", "hf", {"path": "a/b", "image": "img"}),
        ("folder:/somewhere/else", "folder", {"path": "/somewhere/else"}),
        ("inaturalist:target=species", "inaturalist", {"target": "species"}),
    ],
)
def test_a_data_set_in_words(text, name, fields):
    assert DATASETS.parse(text) == (name, fields)
    values = datasets.resolve(name, fields)
    assert datasets.resolve(*DATASETS.parse(datasets.spell(name, values))) == values


def test_unknown_and_missing_fields_are_named(tmp_path):
    refused(
        r"^dataset hf\.imagee = x: unknown field; choose from .*did you mean image", "hf", tmp_path, {"imagee": "x"}
    )
    refused(r"^dataset hf\.path = missing: needs a value", "hf", tmp_path)
    refused(r"^dataset cifar10\.size = 64: unknown field; it has no fields", "cifar10", tmp_path, {"size": "64"})
    refused(r"^dataset inaturalist\.size = 0: .*greater than or equal to 1", "inaturalist", tmp_path, {"size": "0"})


# CIFAR


@pytest.mark.parametrize("name", official.FAMILIES)
def test_cifar_is_the_same_from_every_source(tmp_path, monkeypatch, name):
    """Folder, archive, both prepared, and Hugging Face's rows in another order: equal bits, in the order of hashes."""
    folder, archive, hub = (tmp_path / place for place in ("folder", "archive", "hub"))
    held = official.cifar(folder, name, monkeypatch, IMAGES)
    packed = next(folder.glob("*.tar.gz"))
    archive.mkdir()
    packed.rename(archive / packed.name)
    shuffled = {part: np.random.default_rng(3).permutation(len(held[f"{part}_y"])) for part in ("train", "test")}
    official.cifar_parquet(hub, name, held, shuffled)
    first = datasets.load(name, folder)
    assert left(folder) == []
    assert first.train_x.shape == (IMAGES[0], 3, 32, 32)
    for part in ("train", "test"):
        x, y = getattr(first, f"{part}_x").numpy(), getattr(first, f"{part}_y").numpy()
        marks = [hashlib.sha256(image.tobytes()).digest() for image in x]
        assert marks == sorted(marks)
        pairs = {image.tobytes(): int(label) for image, label in zip(held[f"{part}_x"], held[f"{part}_y"], strict=True)}
        assert {image.tobytes(): int(label) for image, label in zip(x, y, strict=True)} == pairs
    assert same(first, datasets.load(name, archive))
    for root in (folder, archive, hub):
        datasets.prepare(name, root)
        assert left(root) == [f"{name}.safetensors"]
        assert same(first, datasets.load(name, root))
        digest = datasets.digest(name, {}, root)
        assert (digest is None) == (root != hub)  # official files are what the name says, a copy from elsewhere is not
    assert "official files" in first.source
    assert "uoft-cs" in datasets.load(name, hub).source


class Bomb:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.mark.parametrize("name", official.FAMILIES)
def test_a_cifar_file_with_another_checksum_is_never_unpickled(tmp_path, monkeypatch, name):
    held = official.cifar(tmp_path, name, monkeypatch, IMAGES)
    family = getattr(torchvision_sets, name.upper())
    (tmp_path / family.filename).unlink()
    assert len(held["train_y"]) == IMAGES[0]
    for file in (*official.FAMILIES[name][1], official.FAMILIES[name][2], family.meta["filename"]):
        path = tmp_path / family.base_folder / file
        whole = path.read_bytes()
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
        expected = f"MD5 is {md5(path.read_bytes()).hexdigest()}, expected {md5(whole).hexdigest()}"
        for ask in (datasets.load, datasets.prepare):
            refused(rf"^data file = .*{file}: {expected}; it was not read", name, tmp_path, ask=ask)
        path.unlink()
        refused(rf"^data file = .*{file}: is missing", name, tmp_path, ask=datasets.load)
        path.write_bytes(whole)
    assert not (tmp_path / "mark").exists()
    pickle.loads(pickle.dumps(Bomb(tmp_path / "mark"))).close()  # the bomb works
    assert (tmp_path / "mark").exists()
    assert len(datasets.load(name, tmp_path).train_y) == IMAGES[0]


def test_a_cifar_archive_that_is_changed_or_cut_off_is_refused(tmp_path, monkeypatch):
    official.cifar(tmp_path, "cifar10", monkeypatch, IMAGES)
    family = torchvision_sets.CIFAR10
    shutil.rmtree(tmp_path / family.base_folder)
    archive = tmp_path / family.filename
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-100])
    refused(r"^data file = .*cifar-10-python.tar.gz: MD5 is ", "cifar10", tmp_path, ask=datasets.load)
    monkeypatch.setattr(family, "tgz_md5", md5(whole[:-100]).hexdigest())
    refused(r"^data file = .*: (cannot be unpacked|MD5 is|is missing)", "cifar10", tmp_path, ask=datasets.load)
    with tarfile.open(archive, "w:gz") as packed:
        entry = tarfile.TarInfo("../outside")
        packed.addfile(entry, io.BytesIO())
    monkeypatch.setattr(family, "tgz_md5", md5(archive.read_bytes()).hexdigest())
    refused(r"^data file = .*: cannot be unpacked", "cifar10", tmp_path, ask=datasets.load)


def test_cifar_that_is_nowhere_tells_the_way_out(tmp_path):
    cure = r"run `pflbench prepare cifar10 --data-root .*`$"
    refused(rf"^data_root = {tmp_path}: cifar10 is not prepared there; {cure}", "cifar10", tmp_path, ask=datasets.load)
    refused(
        rf"^data_root = missing: give --data-root DIR or set PFLBENCH_DATA; .*{cure}",
        "cifar10",
        None,
        ask=datasets.load,
    )
    refused(r"^dataset = uoft-cs/cifar10: cannot be read from Hugging Face \(", "cifar10", tmp_path)


def test_cifar_from_hugging_face_must_be_all_of_it(tmp_path, monkeypatch):
    held = official.cifar(tmp_path / "official", "cifar10", monkeypatch, IMAGES)
    official.cifar_parquet(tmp_path, "cifar10", held, {"train": np.arange(59), "test": np.arange(20)})
    refused(
        r"^dataset = uoft-cs/cifar10: has \(59, 20\) images of 10 classes, not \(60, 20\) of 10", "cifar10", tmp_path
    )
    shutil.rmtree(tmp_path / "uoft-cs")
    official.cifar_parquet(tmp_path, "cifar10", held, {"train": np.arange(60)})
    refused(r"has \(48, 12\) images", "cifar10", tmp_path)
    assert left(tmp_path) == []


# Hugging Face


GREY = {"path": "flwrlabs/femnist", "size": "28", "colour": "grey"}


def test_hugging_face_finds_image_label_and_user(tmp_path):
    """Every pixel, label and writer; a fifth of every writer's images is for testing."""
    pixels = official.femnist(tmp_path)
    datasets.prepare("hf", tmp_path, GREY)
    samples = datasets.load("hf", tmp_path, GREY)
    assert samples.name == "hf:path=flwrlabs/femnist,size=28,colour=grey"
    assert samples.classes == 3
    assert samples.user == "writer_id"
    assert (len(samples.train_y), len(samples.test_y)) == (32, 8)
    seen = set()
    for part in ("train", "test"):
        rows = zip(*(getattr(samples, f"{part}_{kind}") for kind in ("x", "y", "users")), strict=True)
        for x, y, user in rows:
            row = next(i for i, image in enumerate(pixels) if np.array_equal(image, x.numpy()))
            assert (int(y), int(user)) == (row // 5 % 3, row % 5)
            seen.add(row)
    assert seen == set(range(40))
    assert (samples.test_users.bincount(minlength=5) - 8 / 5).abs().max() < 1
    other = {**GREY, "split_seed": "1"}
    datasets.prepare("hf", tmp_path, other)
    assert not torch.equal(samples.test_x, datasets.load("hf", tmp_path, other).test_x)
    assert left(tmp_path) == sorted(path.name for path in (tmp_path / "prepared").glob("hf-*.safetensors"))
    assert len(left(tmp_path)) == 2


def test_hugging_face_takes_the_columns_and_splits_it_is_told(tmp_path):
    official.femnist(tmp_path, splits=("train", "valid"))
    told = {**GREY, "image": "image", "label": "hsf_id", "user": "character", "test": "valid"}
    refused(r"^dataset = hf:path=.*: holds one class only", "hf", tmp_path, told)
    told["label"] = "writer_id"
    datasets.prepare("hf", tmp_path, told)
    samples = datasets.load("hf", tmp_path, told)
    assert (len(samples.train_y), len(samples.test_y), samples.classes) == (40, 40, 5)
    assert samples.train_y.tolist() == [i % 5 for i in range(40)]
    assert samples.train_users.tolist() == samples.test_users.tolist() == [i // 5 % 3 for i in range(40)]


def test_no_split_to_test_on_is_named_none(tmp_path):
    """As the message promises, where the only other split is not for testing."""
    official.femnist(tmp_path, splits=("train", "test"))
    counts = []
    for test in ("", "none"):
        datasets.prepare("hf", tmp_path, {**GREY, "test": test})
        samples = datasets.load("hf", tmp_path, {**GREY, "test": test})
        counts.append((len(samples.train_y), len(samples.test_y)))
    assert counts == [(40, 40), (32, 8)]


def test_missing_split_and_unknown_columns_are_named(tmp_path):
    official.femnist(tmp_path)
    for field, value, message in (
        ("test", "tset", r"\.test = tset: choose from train"),
        ("train", "trian", r"\.train = trian: choose from train \(did you mean train\?\)"),
        ("image", "img", r"\.image = img: choose from character, hsf_id, image, writer_id"),
        ("label", "lable", r"\.label = lable: choose from"),
        ("user", "writer", r"\.user = writer: choose from .*did you mean writer_id"),
        ("image", "hsf_id", r"row 0\.image|\.image = hsf_id: does not hold images"),
        ("label", "image", r", column = image: holds neither numbers nor text"),
        ("user", "image", r", column = image: holds neither numbers nor text"),
        ("test", "train", r"\.test = train: is what is trained on"),
    ):
        refused(rf"^dataset flwrlabs/femnist.*{message}", "hf", tmp_path, {**GREY, field: value})
    refused(
        r"^dataset = flwrlabs/femnist: cannot be read from the copy in the data root",
        "hf",
        tmp_path,
        {**GREY, "config": "x"},
    )
    assert left(tmp_path) == []


def test_two_label_columns_ask_for_a_choice(tmp_path, monkeypatch):
    held = official.cifar(tmp_path / "official", "cifar100", monkeypatch, IMAGES)
    official.cifar_parquet(
        tmp_path, "cifar100", held, {part: np.arange(len(held[f"{part}_y"])) for part in ("train", "test")}
    )
    given = {"path": "uoft-cs/cifar100"}
    refused(r"\.label = not given: name one of fine_label, coarse_label: label=COLUMN", "hf", tmp_path, given)
    datasets.prepare("hf", tmp_path, {**given, "label": "coarse_label"})
    samples = datasets.load("hf", tmp_path, {**given, "label": "coarse_label"})
    assert samples.classes == 20
    assert samples.train_y.tolist() == (held["train_y"] // 5).tolist()
    assert np.array_equal(samples.test_x.numpy(), held["test_x"])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"", r"^image = flwrlabs/femnist, split train, row 7: (is missing|cannot be decoded)"),
        (b"no image", r"row 7: cannot be decoded \(UnidentifiedImageError"),
        (official.png(np.zeros((1, 28, 28), np.uint8))[:-30], r"row 7: cannot be decoded \("),
        (None, r"row 7: is missing"),
    ],
)
def test_a_corrupt_image_stops_the_preparation_and_leaves_nothing(tmp_path, broken, message):
    def change(columns):
        columns["image"][7] = None if broken is None else {"bytes": broken, "path": None}
        return columns

    official.femnist(tmp_path, change=change)
    refused(message, "hf", tmp_path, GREY)
    assert left(tmp_path) == []


def test_a_label_that_is_no_number_is_missing_not_a_class():
    assert hf._classes(object(), {"train": [1.0, float("nan"), 0.0], "test": [None]}) == [0.0, 1.0]


def test_images_of_16_bits_are_refused_not_cut_off(tmp_path):
    for label, number in product("ab", range(3)):
        (tmp_path / "deep" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 5000, np.uint16)).save(tmp_path / "deep" / label / f"{number}.png")
    refused(
        r"^image = .*png: cannot be decoded \(ValueError: mode I;16 has more than 8 bits",
        "folder",
        tmp_path,
        {"path": "deep"},
    )
    assert left(tmp_path) == []


def test_what_a_killed_preparation_left_is_swept_up(tmp_path):
    """Its draft and its scratch folder, whatever is prepared next; those of a living process stay."""
    official.femnist(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, alive = (tmp_path / f".arrow-{pid}-x" for pid in (gone.pid, os.getppid()))
    for folder in (dead, alive):
        folder.mkdir()
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / ".other.safetensors.draft").write_bytes(b"half")
    datasets.prepare("hf", tmp_path, GREY)
    assert not dead.exists()
    assert alive.exists()
    assert len(left(tmp_path)) == 1
    assert left(tmp_path)[0].startswith("hf-")


def test_hidden_labels_are_refused(tmp_path):
    def change(columns):
        columns["character"][3] = -1
        return columns

    official.femnist(tmp_path, change=change)
    refused(
        r"^label = flwrlabs/femnist, split train, row 3: is missing: this split cannot be used", "hf", tmp_path, GREY
    )


def test_a_damaged_parquet_file_is_refused(tmp_path):
    official.femnist(tmp_path)
    path = next(tmp_path.rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-200])
    refused(r"^dataset = flwrlabs/femnist: cannot be read from the copy in the data root \(", "hf", tmp_path, GREY)


# Folders and iNaturalist


def classes(root, counts, names=("cat", "dog", "elk"), size=(24, 20)):
    rng = np.random.default_rng(1)
    for name, count in zip(names, counts, strict=True):
        for number in range(count):
            official.photo(root / name / f"{number:03d}.jpg", rng, size)


def test_a_folder_with_train_and_test(tmp_path):
    classes(tmp_path / "set" / "train", (4, 3, 2))
    classes(tmp_path / "set" / "test", (1, 2, 1))
    given = {"path": "set", "size": "8"}
    datasets.prepare("folder", tmp_path, given)
    samples = datasets.load("folder", tmp_path, given)
    assert samples.train_y.tolist() == [0] * 4 + [1] * 3 + [2] * 2
    assert samples.test_y.tolist() == [0, 1, 1, 2]
    files = sorted((tmp_path / "set" / "train").rglob("*.jpg"))
    for file, image in zip(files, samples.train_x, strict=True):
        with Image.open(file) as opened:
            expected = CenterCrop(8)(Resize(8)(opened.convert("RGB")))
        assert np.array_equal(np.asarray(expected).transpose(2, 0, 1), image.numpy())


def test_a_folder_without_a_test_set_gives_a_fifth_of_every_class(tmp_path):
    classes(tmp_path / "elsewhere", (20, 11, 9))
    prepared = {}
    for seed in ("0", "1"):
        given = {"path": str(tmp_path / "elsewhere"), "size": "8", "split_seed": seed}
        datasets.prepare("folder", tmp_path, given)
        prepared[seed] = datasets.load("folder", tmp_path, given)
    samples = prepared["0"]
    assert samples.train_y.bincount().tolist() == [16, 8, 8]
    assert samples.test_y.bincount().tolist() == [4, 3, 1]
    pictures = {image.numpy().tobytes() for part in (samples.train_x, samples.test_x) for image in part}
    assert len(pictures) == 40
    assert not torch.equal(samples.test_x, prepared["1"].test_x)


def test_unfit_folders_are_refused(tmp_path):
    given = {"path": "set"}
    refused(r"^dataset folder\.path = .*set: .*No such file", "folder", tmp_path, given)
    classes(tmp_path / "set" / "train", (4, 3, 2))
    refused(r"has a folder train and no test or val; needs both, train and test, or neither", "folder", tmp_path, given)
    classes(tmp_path / "set" / "test", (1, 2), ("cat", "dog"))
    refused(r"train and test differ in their classes: elk", "folder", tmp_path, given)
    (tmp_path / "set" / "test" / "elk").mkdir()
    refused(r"^dataset folder\.path = .*test: no image in the folders of the classes elk", "folder", tmp_path, given)
    official.photo(tmp_path / "set" / "test" / "elk" / "0.jpg", np.random.default_rng(0))
    (tmp_path / "set" / "train" / "dog" / "001.jpg").write_bytes(b"\xff\xd8\xff")
    refused(r"^image = .*train/dog/001\.jpg: cannot be decoded", "folder", tmp_path, given)
    classes(tmp_path / "one", (9,), ("cat",))
    refused(r"^dataset = folder:path=one: holds one class only; needs two or more", "folder", tmp_path, {"path": "one"})
    assert left(tmp_path) == []


def test_the_content_of_a_folder_identifies_it_and_its_place_does_not(tmp_path):
    for place in ("here", "there", "else"):
        classes(tmp_path / place, (6, 5), ("cat", "dog"))
    official.photo(tmp_path / "else" / "cat" / "000.jpg", np.random.default_rng(9))
    digests = []
    for place in ("here", "there", "else"):
        refused(
            r"is not prepared there; run `pflbench prepare folder:path=",
            "folder",
            {"path": place},
            tmp_path,
            ask=datasets.digest,
        )
        datasets.prepare("folder", tmp_path, {"path": place})
        digests.append(datasets.digest("folder", {"path": place}, tmp_path))
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 16


def lines(*arguments):
    done = invoke("prepare", *arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_what_a_folder_grew_by_is_prepared(tmp_path):
    """It said "verified" and runs used the old pixels."""
    classes(tmp_path / "set", (6, 5), ("cat", "dog"))
    place = ("folder:set,size=8", "--data-root", tmp_path)
    assert "2 classes (images to train + test): cat (" in lines(*place)
    assert "again" not in lines(*place)
    first = datasets.digest("folder", {"path": "set", "size": "8"}, tmp_path)
    classes(tmp_path / "set", (7,), ("elk",))
    told = lines(*place)
    assert "prepared again: the files that it was made of have changed" in told
    assert "3 classes" in told
    assert datasets.load("folder", tmp_path, {"path": "set", "size": "8"}).classes == 3
    assert datasets.digest("folder", {"path": "set", "size": "8"}, tmp_path) != first
    (tmp_path / "set" / "cat").rename(tmp_path / "set" / "x")
    (tmp_path / "set" / "dog").rename(tmp_path / "set" / "cat")
    (tmp_path / "set" / "x").rename(tmp_path / "set" / "dog")
    assert "have changed" in lines(*place)
    assert "prepared again: asked for" in lines(*place, "--force")


def test_what_cannot_be_prepared_again_stays(tmp_path):
    given, path = make(tmp_path)
    before = path.read_bytes()
    (tmp_path / "set" / "cat" / "000.jpg").write_bytes(b"no image")
    refused(r"000\.jpg: cannot be decoded", "folder", tmp_path, given)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("train", "test"), [("Training", "Testing"), ("Train", "Val"), ("TRAIN", "validation"), ("train", "Test")]
)
def test_splits_are_named_as_people_name_them(tmp_path, train, test):
    """They became the two classes."""
    classes(tmp_path / "set" / train, (4, 3), ("cat", "dog"))
    classes(tmp_path / "set" / test, (1, 2), ("cat", "dog"))
    datasets.prepare("folder", tmp_path, {"path": "set", "size": "8"})
    samples = datasets.load("folder", tmp_path, {"path": "set", "size": "8"})
    assert samples.train_y.tolist() == [0] * 4 + [1] * 3
    assert samples.test_y.tolist() == [0, 1, 1]


def test_splits_that_may_be_meant_in_two_ways_are_refused(tmp_path):
    for name in ("Train", "training", "test"):
        classes(tmp_path / "set" / name, (2, 2), ("cat", "dog"))
    refused(r"has Train and training: which is to train on", "folder", tmp_path, {"path": "set"})
    for name in ("train", "val", "valid"):
        classes(tmp_path / "two" / name, (2, 2), ("cat", "dog"))
    refused(r"has val and valid: which is to test on", "folder", tmp_path, {"path": "two"})
    classes(tmp_path / "lone" / "Testing", (2, 2), ("cat", "dog"))
    refused(r"has a folder Testing and no train; needs both", "folder", tmp_path, {"path": "lone"})


def test_what_is_no_image_of_the_set_is_left_out_and_told(tmp_path):
    """Tool folders became classes, links led out of the folder and into loops, formats were dropped without a word."""
    classes(tmp_path / "set", (6, 5), ("cat", "dog"))
    classes(tmp_path / "outside", (9,), ("elk",))
    rng, folder = np.random.default_rng(0), tmp_path / "set"
    for hidden in (".git/a.jpg", "__MACOSX/a.jpg", ".ipynb_checkpoints/a.jpg", "cat/.a.jpg", "cat/.thumbs/a.jpg"):
        official.photo(folder / hidden, rng)
    (folder / "cat" / "Thumbs.db").touch()
    (folder / "cat" / "b.heic").touch()
    (folder / "cat" / "c.HEIC").touch()
    (folder / "README").touch()
    (folder / "cat" / "loop").symlink_to(folder)
    (folder / "dog" / "out").symlink_to(tmp_path / "outside")
    (folder / "elk").symlink_to(tmp_path / "outside" / "elk")
    told = lines("folder:set,size=8", "--data-root", tmp_path)
    samples = datasets.load("folder", tmp_path, {"path": "set", "size": "8"})
    assert (samples.classes, len(samples.train_y) + len(samples.test_y)) == (2, 11)
    assert "1 file(s) beside the folders of classes; 2 file(s) of the unknown format .heic; " in told
    assert "6 hidden or of a tool; 3 link(s)" in told


def test_a_class_s_only_image_is_trained_on(tmp_path):
    names = tuple("abcdefghijkl")
    classes(tmp_path / "set", (1,) * 11 + (9,), names)
    datasets.prepare("folder", tmp_path, {"path": "set", "size": "8"})
    samples = datasets.load("folder", tmp_path, {"path": "set", "size": "8"})
    assert samples.train_y.unique().tolist() == list(range(12))
    assert len(samples.test_y) > 0


CARDS = [
    {"mean": [0.1, 0.1, 0.1]},
    {"std": [9.0] * 3},
    {"classes": 3},
    {"origin": "official"},
    {"user": "x"},
    {"images": [1, 1]},
]


@pytest.mark.parametrize("change", CARDS, ids=lambda change: next(iter(change)))
def test_the_card_is_under_a_checksum_too(tmp_path, change):
    """One digit of a mean changed gives other results at the same address."""
    given, path = make(tmp_path)
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    header["__metadata__"]["card"] = canonical({**json.loads(header["__metadata__"]["card"]), **change})
    path.write_bytes(whole[:8] + json.dumps(header).encode().ljust(end - 8) + whole[end:])
    refused(r"the checksum of its card differs\); prepare it again", "folder", tmp_path, given, ask=datasets.load)
    datasets.prepare("folder", tmp_path, given)
    assert path.read_bytes() == whole


STRANGE = [None, -1, 10**30, 1.5, True, "x", "\x1b[2J", [], {}, [[]], {"a": []}, [None] * 3, float("nan")]


@pytest.mark.parametrize(
    "field", ["name", "fields", "images", "classes", "origin", "names", "mean", "std", "checksum", "seal"]
)
def test_no_card_of_a_stranger_is_a_traceback(tmp_path, field):
    """Sealed by someone who knows how."""
    given, path = make(tmp_path)
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    card = json.loads(header.pop("__metadata__")["card"])
    for value in STRANGE:
        changed = {**card, field: value}
        if field != "seal" and value == value:
            changed["seal"] = prepared._seal(changed, header)
        text = json.dumps({"__metadata__": {"card": json.dumps(changed)}, **header}).encode().ljust(end - 8)
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[end:])
        for read in (
            lambda: datasets.load("folder", tmp_path, given),
            lambda: datasets.digest("folder", given, tmp_path),
        ):
            try:
                read()
            except BadInput as error:
                refusal = str(error)
                assert refusal.isprintable()
        assert len(datasets.listing(tmp_path)) == 1


def test_how_the_arrays_lie_is_under_it_as_well(tmp_path):
    given, path = make(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"train_y", b"trainxy", 1))
    refused(r"is damaged", "folder", tmp_path, given, ask=datasets.load)


def test_what_was_prepared_before_cards_had_a_checksum(tmp_path):
    given, path = make(tmp_path)
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    card = json.loads(header["__metadata__"]["card"])
    for name in ("names", "left_out", "stamp", "seal"):
        del card[name]
    header["__metadata__"]["card"] = canonical(card)
    path.write_bytes(whole[:8] + json.dumps(header).encode().ljust(end - 8) + whole[end:])
    refused(r"before cards had a checksum; prepare it again", "folder", tmp_path, given, ask=datasets.load)
    assert "prepared again: was made before" in lines("folder:set,size=12", "--data-root", tmp_path)
    assert path.read_bytes() == whole


def test_inaturalist_2017_at_both_levels(tmp_path, monkeypatch):
    official.inaturalist(tmp_path, monkeypatch)
    for target, count, counts in (("super", 3, [8, 4, 4]), ("species", 4, [4, 4, 4, 4])):
        given = {"target": target, "size": "16"}
        datasets.prepare("inaturalist", tmp_path, given)
        samples = datasets.load("inaturalist", tmp_path, given)
        assert samples.classes == count
        assert samples.train_x.shape == (16, 3, 16, 16)
        assert samples.train_y.bincount().tolist() == counts
        assert (samples.train_y.bincount() + samples.test_y.bincount()).tolist() == [5 * n // 4 for n in counts]
    refused(
        r"^dataset inaturalist\.target = family: 2017 has species, super", "inaturalist", tmp_path, {"target": "family"}
    )


def test_the_file_system_s_order_is_not_the_data_set_s(tmp_path, monkeypatch):
    official.inaturalist(tmp_path, monkeypatch)
    digests, real = [], os.listdir
    for turn in (1, -1):
        monkeypatch.setattr(os, "listdir", lambda path, turn=turn: sorted(real(path))[::turn])
        datasets.prepare("inaturalist", tmp_path, {"size": "16"})
        digests.append(datasets.digest("inaturalist", {"size": "16"}, tmp_path))
        shutil.rmtree(tmp_path / "prepared")
    assert digests[0] == digests[1]


def test_inaturalist_2021_trains_on_mini_and_tests_on_valid(tmp_path, monkeypatch):
    official.inaturalist(tmp_path, monkeypatch)
    levels = {"species": [0, 1, 2, 3], "class": [0, 0, 1, 2], "kingdom": [0, 0, 0, 1], "super": [0, 0, 1, 2]}
    for target, labels in levels.items():
        given = {"version": "2021_mini", "target": target, "size": "16"}
        datasets.prepare("inaturalist", tmp_path, given)
        samples = datasets.load("inaturalist", tmp_path, given)
        assert samples.train_y.tolist() == np.repeat(labels, 5).tolist()
        assert samples.test_y.tolist() == np.repeat(labels, 2).tolist()
        assert samples.classes == max(labels) + 1
    datasets.prepare("inaturalist", tmp_path, {"version": "2021_mini"})  # super-categories by default


def test_the_super_categories_of_2021():
    """As the organisers' table has them: plants and fungi by kingdom, molluscs by phylum, other animals by class."""
    folders = {
        "Plantae_Tracheophyta_Magnoliopsida": "Plantae",
        "Fungi_Basidiomycota_Agaricomycetes": "Fungi",
        "Animalia_Mollusca_Gastropoda": "Mollusca",
        "Animalia_Chordata_Aves": "Aves",
        "Animalia_Arthropoda_Arachnida": "Arachnida",
        "Animalia_Arthropoda_Malacostraca": "Animalia",
        "Animalia_Annelida_Clitellata": "Animalia",
    }
    rest = "Order_Family_Genus_species"
    assert {ranks: inaturalist.group_of(f"00042_{ranks}_{rest}") for ranks in folders} == folders


def test_inaturalist_from_its_archive(tmp_path, monkeypatch):
    """torchvision verifies and unpacks an archive that lies in the data root, and refuses a changed one."""
    from torchvision.datasets import inaturalist as torchvision_inaturalist

    official.inaturalist(tmp_path, monkeypatch)
    archive = tmp_path / "2017.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "2017", "train_val_images")
    shutil.rmtree(tmp_path / "2017")
    refused(r"^data_root = .*: iNaturalist 2017: ", "inaturalist", tmp_path)
    assert not (tmp_path / "2017").exists()
    with tarfile.open(archive, "w:gz") as packed:
        for file in sorted((tmp_path / "2021_valid").rglob("*.jpg")):
            packed.add(file, f"train_val_images/Aves/{file.parent.name}/{file.name}")
    sums = {**torchvision_inaturalist.DATASET_MD5, "2017": md5(archive.read_bytes()).hexdigest()}
    monkeypatch.setattr(torchvision_inaturalist, "DATASET_MD5", sums)
    refused(r"^data_root = .*2017: has 8 images, expected 20; unpack the archive again", "inaturalist", tmp_path)
    assert left(tmp_path) == []


def test_inaturalist_from_the_organisers_archives(tmp_path, monkeypatch):
    """Found under the names they are published with, verified, unpacked and prepared; another file is left alone."""
    from torchvision.datasets import inaturalist as torchvision_inaturalist

    official.inaturalist(tmp_path, monkeypatch)
    datasets.prepare("inaturalist", tmp_path, {"version": "2021_mini", "size": "16"})
    digest = datasets.digest("inaturalist", {"version": "2021_mini", "size": "16"}, tmp_path)
    shutil.rmtree(tmp_path / "prepared")
    sums = {}
    for version, inside in (("2021_train_mini", "train_mini"), ("2021_valid", "val")):
        archive = tmp_path / f"{inside}.tar.gz"
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(tmp_path / version, inside)
        shutil.rmtree(tmp_path / version)
        sums[version] = md5(archive.read_bytes()).hexdigest()
    given = {"version": "2021_mini", "size": "16"}
    refused(r"^data file = .*train_mini\.tar\.gz: is not the official archive", "inaturalist", tmp_path, given)
    assert not (tmp_path / "2021_train_mini.tgz").exists()
    monkeypatch.setattr(torchvision_inaturalist, "DATASET_MD5", sums)
    datasets.prepare("inaturalist", tmp_path, given)
    assert datasets.digest("inaturalist", given, tmp_path) == digest


# The prepared file


def make(root, **changes):
    classes(root / "set", (30, 20), ("cat", "dog"))
    given = {"path": "set", "size": "12", **changes}
    datasets.prepare("folder", root, given)
    return given, next((root / "prepared").glob("*"))


def test_a_prepared_file_is_mapped_not_copied_and_never_written(tmp_path):
    given, path = make(tmp_path)
    samples = datasets.load("folder", tmp_path, given)
    assert str(path) in Path("/proc/self/maps").read_text()
    before = path.read_bytes()
    samples.train_x.fill_(0)
    assert path.read_bytes() == before
    assert same(datasets.load("folder", tmp_path, given), datasets.load("folder", tmp_path, given))


def test_a_run_reads_prepared_data_without_network_and_without_datasets(tmp_path):
    official.femnist(tmp_path)
    datasets.prepare("hf", tmp_path, GREY)
    shutil.rmtree(tmp_path / "flwrlabs")
    code = (
        "import sys; sys.addaudithook(lambda event, _: sys.exit(event) if event == 'socket.connect' else None);"
        "from pathlib import Path; from pflbench.data import datasets as data;"
        f"data.load('hf', Path(sys.argv[1]), {GREY}); print({{'datasets', 'torchvision', 'PIL'}} & {{*sys.modules}})"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("place", ["length", "header", "card", "labels", "pixels", "end"])
def test_one_changed_byte_is_noticed_and_mended(tmp_path, place):
    given, path = make(tmp_path)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    at = {
        "length": 1, "header": 9, "card": whole.index(b"checksum") + 20, "labels": start + 8, "pixels": start + 3000,
        "end": len(whole) - 1,
    }[place]  # fmt: skip
    for broken in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at], b""):
        path.write_bytes(broken)
        refused(r"^prepared data = .*: is damaged .*; prepare it again", "folder", tmp_path, given, ask=datasets.load)
        assert [row.whole for row in datasets.listing(tmp_path)] == [False]
        datasets.prepare("folder", tmp_path, given)
        assert path.read_bytes() == whole


def test_what_is_whole_is_not_made_again(tmp_path, monkeypatch):
    given, path = make(tmp_path)
    shutil.rmtree(tmp_path / "set")
    datasets.prepare("folder", tmp_path, given)
    assert len(datasets.load("folder", tmp_path, given).train_y) == 40
    assert path.stat().st_nlink == 1


KILLED = """
import os, sys
from pathlib import Path
from pflbench.data import datasets
datasets.prepare("folder", Path(sys.argv[1]), {"path": "set", "size": "12"}, lambda done, total: os._exit(9))
"""


def test_a_killed_preparation_leaves_nothing_that_a_run_would_use(tmp_path):
    classes(tmp_path / "set", (30, 20), ("cat", "dog"))
    given = {"path": "set", "size": "12"}
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], capture_output=True)
    assert killed.returncode == 9
    drafts = left(tmp_path)
    assert len(drafts) == 1
    assert drafts[0].endswith(".draft")
    refused(r"is not prepared there; run `pflbench prepare", "folder", tmp_path, given, ask=datasets.load)
    assert datasets.listing(tmp_path) == []
    datasets.prepare("folder", tmp_path, given)
    assert [name.endswith(".draft") for name in left(tmp_path)] == [False]
    mended = next((tmp_path / "prepared").glob("*")).read_bytes()
    shutil.rmtree(tmp_path / "prepared")
    datasets.prepare("folder", tmp_path, given)
    assert next((tmp_path / "prepared").glob("*")).read_bytes() == mended


def test_an_interrupted_preparation_removes_its_draft(tmp_path):
    classes(tmp_path / "set", (30, 20), ("cat", "dog"))

    def stop(done, total):
        assert (done, total) == (40, 50)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        datasets.prepare("folder", tmp_path, {"path": "set"}, stop)
    assert left(tmp_path) == []


def test_two_preparations_do_not_meet(tmp_path):
    classes(tmp_path / "set", (30, 20), ("cat", "dog"))
    given = {"path": "set", "size": "12"}

    def second(done, total):
        refused(r"^prepared data = .*: another process is preparing it", "folder", tmp_path, given)

    datasets.prepare("folder", tmp_path, given, second)
    assert len(datasets.load("folder", tmp_path, given).train_y) == 40


def test_a_data_root_that_is_a_file(tmp_path):
    classes(tmp_path / "set", (3, 3), ("cat", "dog"))
    (tmp_path / "prepared").write_text("")
    refused(r"^data_root = .*: cannot be written: ", "folder", tmp_path, {"path": "set"})


def test_images_are_read_in_order_across_blocks(monkeypatch):
    monkeypatch.setattr(images, "BLOCK", 4)
    part = images.Part(np.zeros(11, np.int64), lambda i: np.full((1, 2, 2), i, np.uint8))
    into = np.zeros((11, 1, 2, 2), np.uint8)
    assert list(images.read(part, into)) == [4, 4, 3]
    assert into[:, 0, 0, 0].tolist() == list(range(11))


def test_moments_of_many_images_are_those_of_all_of_them():
    images = torch.randint(0, 256, (2500, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = samples.moments(images)
    assert mean == pytest.approx((images.double() / 255).mean((0, 2, 3)).tolist(), rel=1e-12)
    assert std == pytest.approx((images.double() / 255).std((0, 2, 3), correction=0).tolist(), rel=1e-12)


# The command line


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_prepare_and_list_from_the_command_line(tmp_path):
    official.femnist(tmp_path)
    done = invoke("prepare", "hf:flwrlabs/femnist,size=28,colour=grey", "--data-root", tmp_path)
    assert done.exit_code == 0, done.output
    assert "hf:path=flwrlabs/femnist,size=28,colour=grey: 32 training and 8 test images, verified" in done.output
    path = next((tmp_path / "prepared").glob("*"))
    card = prepared.card_of(path)
    line = invoke("prepare", "--list", "--data-root", tmp_path).output.strip()
    assert line.startswith("hf:path=flwrlabs/femnist,size=28,colour=grey: 32 + 8 images, 0.0 MiB, SHA-256 ")
    assert card["checksum"][:16] in line
    path.write_bytes(path.read_bytes()[:-1])
    assert "DAMAGED" in invoke("prepare", "--list", "--data-root", tmp_path).output


def test_official_files_are_listed_as_they_lie(tmp_path, monkeypatch):
    def listing():
        return invoke("prepare", "--list", "--data-root", tmp_path).output

    assert listing() == f"nothing is prepared in {tmp_path}\n"
    official.cifar(tmp_path, "cifar10", monkeypatch, IMAGES)
    assert listing().startswith(f"cifar10: {IMAGES[0]} + {IMAGES[1]} images, ")
    shutil.rmtree(next(path for path in tmp_path.iterdir() if path.is_dir()))
    assert listing().startswith(f"cifar10: {IMAGES[0]} + {IMAGES[1]} images, ")
    archive = next(tmp_path.glob("*.tar.gz"))
    archive.write_bytes(archive.read_bytes()[:-1])
    assert listing().startswith("cifar10: DAMAGED")


def test_the_command_line_names_what_is_wrong(tmp_path):
    for arguments, message in (
        (["hf:flwrlabs/femnist"], "pflbench: dataset = flwrlabs/femnist: cannot be read from Hugging Face"),
        (["cifar"], "pflbench: dataset = cifar: choose from cifar10, cifar100"),
        ([], "pflbench: name = missing: give one of cifar10"),
    ):
        done = invoke("prepare", *arguments, "--data-root", tmp_path)
        assert done.exit_code == 2
        assert message in done.output
    assert invoke("prepare", "cifar10").output.startswith("pflbench: data_root = missing")
