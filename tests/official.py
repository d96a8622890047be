"""Tiny data sets in exactly the official formats, for tests: CIFAR archives, parquet files, folders of images."""

import io
import pickle
import tarfile
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

FAMILIES = {
    "cifar10": (10, [f"data_batch_{n}" for n in range(1, 6)], "test_batch", "labels", "label"),
    "cifar100": (100, ["train"], "test", "fine_labels", "fine_label"),
}


def cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch, images: tuple[int, int]) -> dict[str, Any]:
    """The unpacked folder and the archive of ``name``, with as many random images to train and to test; what they hold.

    torchvision is made to expect them. Returns pixels, [n, 3, 32, 32], and labels of both parts.
    """
    from torchvision import datasets

    from pflbench.data import cifar

    family = getattr(datasets, name.upper())
    classes, train, test, key, _ = FAMILIES[name]
    rng = np.random.default_rng(classes)
    held: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for part, count, batches in (("train", images[0], train), ("test", images[1], [test])):
        held[f"{part}_y"] = rng.permutation(np.arange(count) % classes)
        base = rng.integers(0, 256, (classes, 3, 32, 32))
        noise = rng.integers(0, 64, (count, 3, 32, 32))
        held[f"{part}_x"] = ((3 * base[held[f"{part}_y"]] + noise) // 4).astype(np.uint8)
        for file, rows in zip(batches, np.array_split(np.arange(count), len(batches)), strict=True):
            entry = {
                "batch_label": file,
                "data": held[f"{part}_x"][rows].reshape(len(rows), 3072),
                key: held[f"{part}_y"][rows].tolist(),
                "filenames": [f"{row}.png" for row in rows],
            }
            files[file] = pickle.dumps(entry, protocol=2)
    files[family.meta["filename"]] = pickle.dumps({family.meta["key"]: [str(n) for n in range(classes)]}, protocol=2)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as packed:
        for file, content in files.items():
            entry = tarfile.TarInfo(f"{family.base_folder}/{file}")
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    folder = root / family.base_folder
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    (root / family.filename).write_bytes(archive.getvalue())
    sums = {file: md5(content).hexdigest() for file, content in files.items()}
    monkeypatch.setattr(family, "tgz_md5", md5(archive.getvalue()).hexdigest())
    monkeypatch.setattr(family, "train_list", [[file, sums[file]] for file in train])
    monkeypatch.setattr(family, "test_list", [[test, sums[test]]])
    monkeypatch.setattr(family, "meta", {**family.meta, "md5": sums[family.meta["filename"]]})
    monkeypatch.setattr(cifar, "IMAGES", images)
    return held


def png(pixels: Any) -> bytes:
    """Pixels [channels, height, width] as a PNG file."""
    array = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG")
    return content.getvalue()


def parquet(
    root: Path, path: str, features: Any, splits: dict[str, dict[str, list[Any]]], folder: str = "data"
) -> None:
    """A copy of a Hugging Face repository: one parquet file a split, images as PNG bytes, and its card."""
    from datasets import Dataset

    (root / path / folder).mkdir(parents=True, exist_ok=True)
    lines = ["---", "configs:", "- config_name: plain_text", "  default: true", "  data_files:"]
    for split, columns in splits.items():
        Dataset.from_dict(columns, features=features).to_parquet(
            root / path / folder / f"{split}-00000-of-00001.parquet"
        )
        lines += [f"  - split: {split}", f"    path: {folder}/{split}-*"]
    (root / path / "README.md").write_text("\n".join([*lines, "---", ""]))


def cifar_parquet(root: Path, name: str, held: dict[str, Any], order: dict[str, Any]) -> None:
    """``uoft-cs/NAME`` with the images of ``cifar`` in another order."""
    import datasets

    classes, _, _, _, label = FAMILIES[name]
    names = datasets.ClassLabel(num_classes=classes)
    features = {"img": datasets.Image(), label: names}
    if name == "cifar100":
        features["coarse_label"] = datasets.ClassLabel(num_classes=20)
    splits = {}
    for part, rows in order.items():
        splits[part] = {
            "img": [{"bytes": png(held[f"{part}_x"][row]), "path": None} for row in rows],
            label: held[f"{part}_y"][rows].tolist(),
        }
        if name == "cifar100":
            splits[part]["coarse_label"] = (held[f"{part}_y"][rows] // 5).tolist()
    parquet(root, f"uoft-cs/{name}", datasets.Features(features), splits, "plain_text")


def femnist(
    root: Path, *, splits: tuple[str, ...] = ("train",), count: int = 40, change: Callable[[Any], Any] = lambda x: x
) -> Any:
    """Columns and types of flwrlabs/femnist: 5 writers, 3 characters."""
    import datasets

    rng = np.random.default_rng(5)
    kinds = {
        "image": datasets.Image(),
        "writer_id": datasets.Value("string"),
        "hsf_id": datasets.Value("int64"),
        "character": datasets.ClassLabel(names=["0", "1", "a"]),
    }
    pixels = rng.integers(0, 256, (count, 1, 28, 28), np.uint8)
    columns = {
        "image": [{"bytes": png(image), "path": None} for image in pixels],
        "writer_id": [f"f{i % 5:04d}_14" for i in range(count)],
        "hsf_id": [0] * count,
        "character": [i // 5 % 3 for i in range(count)],
    }
    parquet(root, "flwrlabs/femnist", datasets.Features(kinds), dict.fromkeys(splits, change(columns)))
    return pixels


def photo(path: Path, rng: np.random.Generator, size: tuple[int, int] = (24, 20)) -> None:
    """A random photograph as a JPEG file; size: width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path, "JPEG")


def inaturalist(root: Path, monkeypatch: pytest.MonkeyPatch, each: int = 5) -> None:
    """The three folders that torchvision's INaturalist reads: 2017, 2021_train_mini, 2021_valid; 4 species."""
    from pflbench.data.sets import inaturalist as module

    rng = np.random.default_rng(0)
    old = ["Aves/Corvus corax", "Aves/Pica pica", "Insecta/Apis mellifera", "Plantae/Quercus robur"]
    ranks = [
        "Animalia_Chordata_Aves_Passeriformes_Corvidae_Corvus_corax",
        "Animalia_Chordata_Aves_Passeriformes_Corvidae_Pica_pica",
        "Animalia_Arthropoda_Insecta_Hymenoptera_Apidae_Apis_mellifera",
        "Plantae_Tracheophyta_Magnoliopsida_Fagales_Fagaceae_Quercus_robur",
    ]
    new = [f"{number:05d}_{rank}" for number, rank in enumerate(ranks)]
    folders = {"2017": (old, each), "2021_train_mini": (new, each), "2021_valid": (new, 2)}
    for version, (names, count) in folders.items():
        for name in names:
            for _ in range(count):
                photo(root / version / name / f"{rng.bytes(16).hex()}.jpg", rng)
    monkeypatch.setattr(module, "IMAGES", {version: 4 * count for version, (_, count) in folders.items()})
