"""Puts data and client states where the plan says: on the device, in host memory or in a memory-mapped file.

It changes no bit. A bank elsewhere than on the device gives and takes the cohort's rows once a round; data elsewhere give
the images of a chunk once a stage.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from pflbench.core import tree
from pflbench.core.errors import BadInput
from pflbench.core.tree import Tree
from pflbench.data.samples import Samples
from pflbench.engine.engine import World
from pflbench.engine.memory import Place, Sizes
from pflbench.engine.task import Pixels
from pflbench.models.zoo import Model

LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # cgroup 2 and 1


def pixels_at(place: Place, x: Tensor, y: Tensor, mean: Tensor, std: Tensor) -> Pixels:
    """``device``: copied there. ``host``: left where they are."""
    if place == "device":
        return Pixels(x.to(mean.device), y.to(mean.device), mean, std)
    return Pixels(x, y, mean, std, apart=True)


def bank_at(place: Place, folder: Path) -> Callable[[Tree, int], Tree]:
    """How ``clients`` copies of a client's first state are laid down; a file lies in ``folder``."""
    if place == "device":
        return tree.repeat
    return lambda c, clients: tree.each(lambda leaf: _filled(leaf, clients, place, folder), c)


def memory(device: torch.device) -> tuple[int | None, int]:
    """Bytes of memory: what is free on the device, None for a CPU, and all that this process may have of the host's."""
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in LIMITS:  # of a container or a batch job
        with suppress(OSError, ValueError):  # not there, or "max"
            host = min(host, int(limit.read_text(encoding="ascii")))
    return (torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None), host


def sizes_of(world: World, samples: Samples, model: Model) -> Sizes:
    """What the budget of ``world`` rests on. An upload is taken to be as large as the server's state."""
    w, c = world.method.init(world.task, world.task.start)
    single = world.engine == "loop"
    image = samples.train_x[0]
    return Sizes(
        images=len(samples.train_y) + len(samples.test_y),
        pixels=image.numel(),
        clients=world.clients,
        cohort=world.cohort_size,
        together=min(world.cohort_size, world.threads if single else world.threads * world.chunk),
        block=world.block,
        batch=world.batch_size,
        longest=max(map(len, world.train)),
        model=tree.numbers(world.task.start),
        server=tree.numbers(w),
        client=tree.numbers(c),
        upload=tree.numbers(w),
        activations=activations(model.module, image),
        number=world.network.dtype.itemsize,
    )


def activations(module: nn.Module, image: Tensor) -> int:
    """Numbers that the layers of ``module`` put out for one image: about what a backward pass needs."""
    counted: list[int] = []
    leaves = [layer for layer in module.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(lambda _, __, out: counted.append(out.numel())) for layer in leaves]
    try:
        with torch.no_grad():
            module(image[None].to(next(module.parameters()).dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counted)


def _filled(leaf: Tensor, clients: int, place: Place, folder: Path) -> Tensor:
    """``leaf`` once per client, [C, ...], in host memory or in a file that is gone when the process is."""
    shape, kind = (clients, *leaf.shape), leaf.dtype
    if place == "host" or not leaf.numel():
        made = torch.empty(shape, dtype=kind, pin_memory=torch.cuda.is_available())
    else:
        made = _mapped(clients * leaf.numel(), kind, folder).view(shape)
    for row in made:  # one by one: the whole is what does not fit in memory
        row.copy_(leaf)
    return made


def _mapped(numbers: int, kind: torch.dtype, folder: Path) -> Tensor:
    """[numbers], mapped from a new file without a name. Raises BadInput if the disk is too small."""
    handle, name = tempfile.mkstemp(prefix=".states.", dir=folder)
    try:
        os.posix_fallocate(handle, 0, numbers * kind.itemsize)
        return torch.from_file(name, shared=True, size=numbers, dtype=kind)
    except OSError as error:
        raise BadInput("results", folder, f"has no room for client states ({error.strerror})") from None
    finally:
        os.close(handle)
        os.unlink(name)
