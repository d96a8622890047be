"""What the spectral term costs in each layout, and what the length of the whole vector does: prints markdown tables.

    python tests/benchmarks/transforms.py

Milliseconds of a value of D and its gradient in float32, without the loss; the reference is transformed before. A DFT of
a length with a large prime factor is slower: the first table names it. ``apart``: one transform per layer, not one per
group of equal shapes. The second transforms vectors around 2^20 alone, there and back.
"""

import statistics
import time
from collections.abc import Callable

import click
import torch

from pflbench.core import spectrum
from pflbench.core.spectrum import Selection
from pflbench.models import zoo
from pflbench.models.zoo import MODELS

NAMED = (
    ("mlp, 8x8", "mlp", {}, (1, 8, 8), 10),
    ("mlp, 28x28", "mlp", {}, (1, 28, 28), 10),
    ("cnn, 28x28", "cnn", {}, (1, 28, 28), 10),
    ("cnn, 32x32", "cnn", {}, (3, 32, 32), 10),
    ("resnet18, width 16", "resnet18", {"width": 16}, (3, 32, 32), 10),
    ("resnet18", "resnet18", {}, (3, 32, 32), 10),
    ("resnet34, 100 classes", "resnet34", {}, (3, 32, 32), 100),
)
LENGTHS = (2**20, 2**20 - 1, 2**20 - 2, 2**20 - 3, 2**20 - 5, 2**20 - 16, 2**20 + 7)


def largest_prime(n: int) -> int:
    largest, factor = 1, 2
    while n > 1:
        while n % factor == 0:
            largest, n = factor, n // factor
        factor += 1
        if factor * factor > n > 1:
            return max(largest, n)
    return largest


def milliseconds(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """The median."""
    times = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times[1:])


@click.command()
@click.option("--repeats", default=5)
@click.option("--device", default="cpu")
def main(repeats: int, device: str) -> None:
    where = torch.device(device)
    print("| model | content | length | largest prime factor | vector | layer | matrix | matrix, apart |")
    print("|---|---|---|---|---|---|---|---|")
    for title, name, fields, shape, classes in NAMED:
        module = zoo.build(MODELS.choose(name, fields), shape, classes, 0).module.to(where)
        for content in ("weights", "all"):
            leaves = [p.detach() for p in module.parameters() if p.ndim >= 2 or content == "all"]
            shapes = tuple(tuple(leaf.shape) for leaf in leaves)
            cells = []
            for layout in ("vector", "layer", "matrix", "apart"):
                selection = Selection(shapes, 0.4, layout="matrix" if layout == "apart" else layout)  # type: ignore[arg-type]
                cells.append(milliseconds(term(leaves, selection, layout == "apart"), repeats, where))
            n = sum(leaf.numel() for leaf in leaves)
            told = " | ".join(f"{cell:.3g}" for cell in cells)
            print(f"| {title} | {content} | {n} | {largest_prime(n)} | {told} |", flush=True)
    print("\n| length | largest prime factor | ms there and back |\n|---|---|---|")
    for n in LENGTHS:
        x = torch.randn(n, generator=torch.Generator().manual_seed(0)).to(where)
        found = milliseconds(lambda x=x, n=n: torch.fft.irfft(torch.fft.rfft(x), n), repeats, where)  # type: ignore[misc]
        print(f"| {n} | {largest_prime(n)} | {found:.3g} |", flush=True)


def term(leaves: list[torch.Tensor], selection: Selection, apart: bool) -> Callable[[], object]:
    """D and its gradient, as a step of SGD takes it."""
    if apart:
        table = spectrum.bins(selection, leaves[0].device, leaves[0].dtype)
        alone = table._replace(groups=[[number] for group in table.groups for number in group])
        real, spectrum.bins = spectrum.bins, lambda *_: alone  # type: ignore[assignment]
    try:
        value = spectrum.distance([0.9 * leaf + 0.01 for leaf in leaves], selection, "kl", "pm", "global", 0.1)
    finally:
        if apart:
            spectrum.bins = real
    moving = [leaf.clone().requires_grad_() for leaf in leaves]
    return lambda: torch.autograd.grad(value(moving), moving)


if __name__ == "__main__":
    main()
