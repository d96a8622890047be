"""Data sets: what is loaded is exactly what it should be, and damaged files are refused with the way out."""

import gzip
import subprocess
import sys
from functools import partial
from hashlib import md5, sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

from pflbench.core.errors import BadInput
from pflbench.data import datasets, idx, samples, sets
from pflbench.data.datasets import DATASETS
from pflbench.data.sets import digits, fashion_mnist

GOLDEN = ["0f6c613b7ad2343d", "3c8b5992955a308e", "f8da3231f745dc76", "89df99af78caf580"]  # SHA-256 of the bytes


def coded(array):
    """The official format: 0, 0, type 8 (unsigned byte), number of axes, big-endian sizes, bytes."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.fixture
def tiny(monkeypatch):
    """Four small files in the official format, name -> gzip bytes, and the loader made to expect them."""
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 256, (12, 28, 28), np.uint8),
        np.arange(12, dtype=np.uint8) % 10,
        rng.integers(0, 256, (5, 28, 28), np.uint8),
        np.arange(5, dtype=np.uint8),
    ]
    contents = dict(zip(fashion_mnist.FILES, map(coded, arrays), strict=True))
    monkeypatch.setattr(fashion_mnist, "FILES", {name: sha256(c).hexdigest() for name, c in contents.items()})
    return arrays, {name: gzip.compress(content) for name, content in contents.items()}


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_names_are_the_modules_that_are_data_sets():
    files = [path.stem for path in Path(sets.__file__).parent.glob("*.py") if not path.stem.startswith("_")]
    assert DATASETS.names() == sorted(files)
    assert DATASETS.text("digits").startswith("1,797 grey 8x8 images")
    assert "torchvision" in DATASETS.text("fashion_mnist")


def test_listing_data_sets_imports_neither_torch_nor_scikit_learn():
    code = "import sys; from pflbench.data.datasets import DATASETS as d; [*map(d.text, d.names())]"
    code += "; print({'torch', 'sklearn'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "ask", [DATASETS.text, lambda name: datasets.load(name, None), lambda n: datasets.prepare(n, Path())]
)
@pytest.mark.parametrize("name", ["digit", "_idx"])
def test_an_unknown_name_is_refused(ask, name):
    with pytest.raises(BadInput, match=rf"^dataset = {name}: choose from .*digits"):
        ask(name)


def test_what_comes_with_the_package_has_nothing_to_prepare(tmp_path):
    with pytest.raises(BadInput, match=r"^dataset = digits: .*nothing to prepare"):
        datasets.prepare("digits", tmp_path)


def test_digits_are_these_very_arrays():
    samples = datasets.load("digits", None)
    assert samples.train_x.shape == (1437, 1, 8, 8)
    assert samples.test_x.shape == (360, 1, 8, 8)
    assert samples.train_x.dtype == samples.test_x.dtype == torch.uint8
    assert samples.train_y.dtype == samples.test_y.dtype == torch.int64
    parts = (samples.train_x, samples.train_y, samples.test_x, samples.test_y)
    assert [sha256(part.numpy().tobytes()).hexdigest()[:16] for part in parts] == GOLDEN
    assert samples.classes == 10
    assert samples.name == "digits"


def test_digits_split_is_stratified_loses_nothing_and_takes_no_notice_of_seeds():
    first = digits.load(None)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    second = digits.load(Path("anywhere"))
    assert torch.equal(first.train_x, second.train_x)
    assert torch.equal(first.test_y, second.test_y)
    train, test = first.train_y.bincount(), first.test_y.bincount()
    assert ((train + test) / 5 - test).abs().max() < 1
    assert (train + test).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # the counts of the file


def test_digits_pixels_are_the_file_s_in_255_sixteenths_rounded():
    from sklearn.datasets import load_digits

    samples = digits.load(None)
    values = torch.cat([samples.train_x, samples.test_x])
    assert values.unique().tolist() == [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    assert sorted(np.rint(values.double().numpy() * 16 / 255).ravel()) == sorted(load_digits().images.ravel())


def test_moments_by_hand_and_against_torch():
    two = torch.tensor([[[[0, 255]], [[51, 51]]]], dtype=torch.uint8)  # one image, two channels, 1 x 2
    mean, std = samples.moments(two)
    assert mean == pytest.approx((0.5, 0.2))
    assert std == pytest.approx((0.5, 0.0))
    images = torch.randint(0, 256, (20, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = samples.moments(images)
    assert mean == pytest.approx((images.double() / 255).mean((0, 2, 3)).tolist(), rel=1e-12)
    assert std == pytest.approx((images.double() / 255).std((0, 2, 3), correction=0).tolist(), rel=1e-12)


@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
def test_fashion_mnist_reads_both_layouts(tmp_path, tiny, place):
    arrays, files = tiny
    put(tmp_path / place, files)
    samples = datasets.load("fashion_mnist", tmp_path)
    for got, array in zip((samples.train_x, samples.test_x), arrays[::2], strict=True):
        assert got.dtype == torch.uint8
        assert np.array_equal(got.numpy(), array[:, None])
    for got, array in zip((samples.train_y, samples.test_y), arrays[1::2], strict=True):
        assert got.dtype == torch.int64
        assert got.tolist() == array.tolist()
    assert samples.mean == pytest.approx((arrays[0].mean() / 255,))
    assert samples.classes == 10


def test_another_gzip_header_is_the_same_data(tmp_path, tiny):
    put(tmp_path, {name: gzip.compress(gzip.decompress(packed), 1, mtime=7) for name, packed in tiny[1].items()})
    assert len(datasets.load("fashion_mnist", tmp_path).train_y) == 12


@pytest.mark.parametrize("name", fashion_mnist.FILES)
def test_damaged_files_are_refused_with_the_way_out(tmp_path, tiny, name):
    _, files = tiny

    def refused(message):
        with pytest.raises(BadInput, match=message) as caught:
            datasets.load("fashion_mnist", tmp_path)
        text = str(caught.value)
        assert name in text
        assert "\n" not in text
        assert text.endswith(f"; run `pflbench prepare fashion_mnist --data-root {tmp_path}`")

    put(tmp_path, files)
    whole, content = files[name], gzip.decompress(files[name])
    (tmp_path / name).unlink()
    refused(r"^data_root = .*: no ")
    for broken in (b"", whole[:-9], whole[: len(whole) // 2], b"not gzip", whole[:-8] + bytes(8)):
        put(tmp_path, {name: broken})
        refused(r"^data file = .*: (not a whole gzip file|SHA-256 of its content is)")
    tampered = content[:-1] + bytes([content[-1] ^ 1])
    put(tmp_path, {name: gzip.compress(tampered)})
    expected = f"{sha256(tampered).hexdigest()}, expected {sha256(content).hexdigest()};"
    refused(f"^data file = .*: SHA-256 of its content is {expected}")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x08\x00",
        coded(np.zeros((2, 3), np.uint8))[:-1],
        coded(np.zeros((2, 3), np.uint8)) + b"\0",
        b"\0\0\x0d\x01\0\0\0\x01\0",  # floats
        b"\0\x01\x08\x01\0\0\0\x01\0",  # wrong magic
        b"\0\0\x08\x02\0\0\0\x01",  # header cut off
        coded(np.zeros((0, 3), np.uint8)),
    ],
)
def test_what_is_no_idx_file_is_refused(content):
    with pytest.raises(BadInput, match=r"^data file = f: not an idx file of unsigned bytes, or not as long"):
        idx.parse(content, Path("f"))


def test_idx_by_hand():
    parsed = idx.parse(b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03" + bytes([1, 2, 3, 4, 5, 255]), Path("f"))
    assert parsed.tolist() == [[1, 2, 3], [4, 5, 255]]
    assert parsed.dtype == torch.uint8


def test_without_a_root_the_message_tells_how_to_give_one(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "absent")
    with pytest.raises(
        BadInput, match=r"^data_root = missing: give --data-root DIR or set PFLBENCH_DATA; .*prepare fash"
    ):
        datasets.load("fashion_mnist", None)


def test_without_a_root_debian_s_files_are_used_but_never_behind_a_root_that_was_given(tmp_path, monkeypatch, tiny):
    put(tmp_path / "debian", tiny[1])
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    assert len(datasets.load("fashion_mnist", None).train_y) == 12
    with pytest.raises(BadInput, match=r"^data_root = .*given: no train-images-idx3-ubyte.gz"):
        datasets.load("fashion_mnist", tmp_path / "given")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """The address of a web server on this machine that serves the folder ``mirror``."""
    monkeypatch.setenv("no_proxy", "*")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "mirror")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_prepare_replaces_what_is_damaged_and_leaves_what_is_whole(tmp_path, tiny, mirror, monkeypatch):
    """torchvision's own downloader from a local mirror; once all is there, nothing is fetched."""
    from torchvision.datasets import FashionMNIST

    _, files = tiny
    put(tmp_path / "mirror", files)
    raw = tmp_path / "root" / "FashionMNIST" / "raw"
    first = next(iter(files))
    put(raw, {first: files[first][:-5]})
    monkeypatch.setattr(FashionMNIST, "mirrors", [mirror])
    monkeypatch.setattr(FashionMNIST, "resources", [(name, md5(packed).hexdigest()) for name, packed in files.items()])
    datasets.prepare("fashion_mnist", tmp_path / "root")
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == files
    for path in (tmp_path / "mirror").iterdir():
        path.unlink()
    datasets.prepare("fashion_mnist", tmp_path / "root")
    with pytest.raises(BadInput, match=r"^data_root = .*other: the files could not be fetched: "):
        datasets.prepare("fashion_mnist", tmp_path / "other")


official = pytest.mark.skipif(not fashion_mnist.DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")


@official
def test_the_real_fashion_mnist_loads():
    samples = datasets.load("fashion_mnist", None)
    assert samples.train_x.shape == (60000, 1, 28, 28)
    assert samples.test_x.shape == (10000, 1, 28, 28)
    assert samples.train_y.bincount().tolist() == [6000] * 10
    assert samples.test_y.bincount().tolist() == [1000] * 10
    assert samples.mean == pytest.approx((0.2860,), abs=5e-5)
    assert samples.std == pytest.approx((0.3530,), abs=5e-5)


@official
def test_debian_s_archives_are_the_official_ones_but_for_the_gzip_header():
    """With name and date of 31 August 2017 put back, each archive has the MD5 that Zalando and torchvision publish."""
    from torchvision.datasets import FashionMNIST

    dates = {"train": 1504176606, "t10k": 1504176627}
    for name, published in FashionMNIST.resources:
        date = dates[name.split("-")[0]].to_bytes(4, "little")
        header = b"\x1f\x8b\x08\x08" + date + b"\x00\x03" + name.removesuffix(".gz").encode() + b"\0"
        assert md5(header + (fashion_mnist.DEBIAN / name).read_bytes()[10:]).hexdigest() == published
