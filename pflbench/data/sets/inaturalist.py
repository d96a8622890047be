"""Photographs of species: iNaturalist 2017 (5,089 species, 13 super-categories) or 2021-mini (10,000, 11).

Van Horn et al., CVPR 2018, arXiv 1707.06642; the 2021 competition. ``pflbench prepare`` finds torchvision's folders in
the data root (2017, or 2021_train_mini and 2021_valid), or else the organisers' archives (train_val_images.tar.gz, or
train_mini.tar.gz and val.tar.gz), or downloads them (186 GB, or 45 and 9 GB), and resizes once. 2017:
a fifth of the images of every class, drawn with ``split_seed``, is for testing, as torchvision's archive does not tell
the official training and validation images apart. 2021: trained on train_mini, tested on valid.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pflbench.core.errors import BadInput
from pflbench.core.fields import hyper
from pflbench.data.images import Part, Size, Source, SplitSeed, shape_of, split_off
from pflbench.data.sets.folder import part_of

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
# As the organisers count them (github.com/visipedia/inat_comp, pages 2017 and 2021); 2017: 579,184 + 95,986
GROUPS = ("Insecta", "Aves", "Reptilia", "Mammalia", "Actinopterygii", "Amphibia", "Arachnida")  # classes of animals
IMAGES = {"2017": 675_170, "2021_train_mini": 500_000, "2021_valid": 100_000}


def source(
    root: Path,
    *,
    version: Annotated[
        Literal["2017", "2021_mini"], hyper("edition", source="spectral co-distillation: 2017")
    ] = "2017",
    target: Annotated[
        Literal["species", "super", "kingdom", "phylum", "class", "order", "family", "genus"],
        hyper("what is to be told apart; super: super-categories; the ranks from kingdom to genus: 2021 only"),
    ] = "super",
    size: Size = 64,
    split_seed: SplitSeed = 0,
) -> Source:
    """uint8[n, 3, size, size]. Raises BadInput."""
    if target in RANKS and version == "2017":
        raise BadInput("dataset inaturalist.target", target, "2017 has species, super")
    kind = "full" if target == "species" else target
    origin = f"iNaturalist {version}, {target}"
    if version == "2017":
        held = _held(root, "2017", kind)
        train, test = split_off(_part(held, kind, size), split_seed)
        return Source(train, test, _classes(held, kind), shape_of(size, "rgb"), origin)
    first, second = (_held(root, name, kind) for name in ("2021_train_mini", "2021_valid"))
    if first.all_categories != second.all_categories:
        raise BadInput("data_root", root, "2021_train_mini and 2021_valid differ in their classes; unpack them again")
    parts = [_part(held, kind, size) for held in (first, second)]
    return Source(parts[0], parts[1], _classes(first, kind), shape_of(size, "rgb"), origin)


def _held(root: Path, version: str, kind: str) -> Any:
    """torchvision's data set, downloaded and verified by MD5 if its folder is not there."""
    from torchvision.datasets import INaturalist, inaturalist
    from torchvision.datasets.utils import check_integrity

    archive, named = root / f"{version}.tgz", root / inaturalist.DATASET_URLS[version].rpartition("/")[2]
    if not (root / version).is_dir() and not archive.exists() and named.is_file():
        if not check_integrity(str(named), inaturalist.DATASET_MD5[version]):
            raise BadInput("data file", named, "is not the official archive (MD5); get it again, or take it away")
        archive.symlink_to(named.name)  # the name that torchvision looks for
    try:
        known = "full" if kind == "super" and version != "2017" else kind  # torchvision has no super-categories of 2021
        held = INaturalist(root, version, known, download=not (root / version).is_dir())
    except (OSError, RuntimeError) as error:
        raise BadInput("data_root", root, f"iNaturalist {version}: {' '.join(str(error).split())}") from None
    if len(held.index) != IMAGES[version]:
        folder, wanted = root / version, IMAGES[version]
        raise BadInput(
            "data_root", folder, f"has {len(held.index)} images, expected {wanted}; unpack the archive again"
        )
    return held


def _part(held: Any, kind: str, size: int) -> Part:
    """Sorted by class folder and file name, which torchvision leaves to the file system."""
    files = []
    groups = sorted(set(map(group_of, held.all_categories))) if kind == "super" and held.version != "2017" else None
    for category, file in sorted(held.index):
        if groups is not None:
            label = groups.index(group_of(held.all_categories[category]))
        else:
            label = category if kind == "full" else held.categories_map[category][kind]
        files.append((str(Path(held.root) / held.all_categories[category] / file), label))
    return part_of(files, size, "rgb")


def group_of(species: str) -> str:
    """The super-category of a folder of 2021, as the organisers group species: number_kingdom_phylum_class_..."""
    _, kingdom, phylum, rank, *_ = species.split("_")
    if kingdom in ("Plantae", "Fungi"):
        return kingdom
    return rank if rank in GROUPS else "Mollusca" if phylum == "Mollusca" else "Animalia"


def _classes(held: Any, kind: str) -> int:
    if kind == "super" and held.version != "2017":
        return len(set(map(group_of, held.all_categories)))
    return len(held.all_categories) if kind == "full" else len(held.categories_index[kind])
