"""From images and a module to what a client optimises: pixels, the network as a function, the task's loss."""

import copy
import threading
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pflbench.core.local import Batch, Task, is_alone, training
from pflbench.core.tree import State
from pflbench.models.zoo import Model

Slot = tuple[dict[str, Any], str, Tensor]  # a layer's own table, the name there, what lies there between calls
PAD = 4  # pixels of zeros on each side of an image before it is cropped to its own size again
Precision = Literal["float32", "tf32", "bfloat16", "float64"]


@dataclass(frozen=True)
class Pixels:
    """Images as uint8 until a batch is made. x: [N, channels, height, width]; y: [N]; mean, std: [channels, 1, 1].

    apart: x and y are not on the device but in host memory; ``near`` picks what is asked for, ``landed`` brings it over.
    """

    x: Tensor
    y: Tensor
    mean: Tensor
    std: Tensor
    apart: bool = False

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self.mean.device

    def near(self, index: Tensor, room: int | None = None) -> tuple["Pixels", Tensor]:
        """(pixels, ``index`` into them): all if they are on the device, else copies, still apart, of those it names.

        index: on the host, as is the result. room: how many there shall be at least, the last one repeated, where
        every call must give equal shapes. Touches no device, so that a thread may call it while a GPU works.
        """
        if not self.apart:
            return self, index
        used, where = torch.unique(index, return_inverse=True)
        if room is not None:
            used = torch.cat([used, used[-1:].expand(max(0, room - len(used)))])
        return replace(self, x=self.x[used], y=self.y[used]), where

    def landed(self) -> "Pixels":
        """These pixels on the device, by way of pinned memory if that is a GPU."""
        if not self.apart:
            return self
        x, y = (part.pin_memory() if self.device.type == "cuda" else part for part in (self.x, self.y))
        return replace(
            self, x=x.to(self.device, non_blocking=True), y=y.to(self.device, non_blocking=True), apart=False
        )

    def images(self, index: Tensor) -> Tensor:
        """Normalised images of ``index: [B]``: [B, channels, height, width]."""
        return self._normal(self.x[index])

    def batch(self, draws: dict[str, Tensor]) -> Batch:
        """One step's draws (index, mask: [B]; with augmentation crop: [B, 2], flip: [B]) as a batch."""
        x = self.x[draws["index"]]
        if "crop" in draws:
            x = distorted(x, draws["crop"], draws["flip"])
        return Batch(self._normal(x), self.y[draws["index"]], draws["mask"])

    def _normal(self, x: Tensor) -> Tensor:
        return (x.to(self.mean.dtype) / 255 - self.mean) / self.std


def distorted(x: Tensor, crop: Tensor, flip: Tensor) -> Tensor:
    """Random crop and mirror image, as torchvision has them: pad x with zeros, cut, turn left and right.

    x: uint8[B, channels, height, width]. crop: [B, 2], the upper left corner, 0 to 2 PAD. flip: bool[B].
    """
    height, width = x.shape[2:]
    down, right = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    row = down + crop[:, :1] - PAD  # [B, height]: where each row comes from
    column = torch.where(flip[:, None], width - 1 - right, right) + crop[:, 1:] - PAD  # [B, width]
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None]
    place = row.clamp(0, height - 1)[:, :, None] * width + column.clamp(0, width - 1)[:, None]  # [B, height, width]
    moved = x.flatten(2).gather(2, place.flatten(1)[:, None].expand(-1, x.shape[1], -1))
    return moved.view(x.shape) * inside[:, None]


class Network:
    """A module as a pure function of its state.

    The state is kept in ``dtype``; with precision bfloat16 the forward and backward pass run in bfloat16 on a cast
    copy, the update in float32. Safe to call from several threads.

    On a CPU, a model with convolutions is given its images channels_last where one model is computed at a time: a
    fixed rule on device, layers and precision. Weights keep the standard layout; float64 does too, since the library
    that gains from the other one has no float64.
    """

    def __init__(self, module: nn.Module, precision: Precision) -> None:
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self._compute = torch.bfloat16 if precision == "bfloat16" else self.dtype
        self._buffers = {name for name, _ in module.named_buffers()}
        self._convolutional = any(isinstance(layer, nn.Conv2d) for layer in module.modules())
        self._skeleton = copy.deepcopy(module).to("meta")
        self._mine = threading.local()

    def channels_last(self, device: torch.device) -> bool:
        """Whether one model at a time gets its images channels_last."""
        return self._convolutional and self._compute != torch.float64 and device.type == "cpu"

    def logits(self, p: State, x: Tensor) -> Tensor:
        """[B, classes] for x: [B, channels, height, width]."""
        if not hasattr(self._mine, "module"):  # tensors are swapped in place: one skeleton per thread
            self._mine.module = copy.deepcopy(self._skeleton)
            self._mine.slots = _slots(self._mine.module)
        if self._compute != self.dtype:
            p = {name: value if name in self._buffers else value.to(self._compute) for name, value in p.items()}
        if self.channels_last(x.device) and is_alone():
            x = x.contiguous(memory_format=torch.channels_last)
        slots: dict[str, Slot] = self._mine.slots
        try:  # torch.func.functional_call by hand: a small model's step alone takes a tenth less
            for name, (held, key, _) in slots.items():
                held[key] = p[name]
            output: Tensor = self._mine.module(x.to(self._compute))
        finally:  # no tensor of a finished transform stays behind
            for held, key, empty in slots.values():
                held[key] = empty
        return output.to(self.dtype)

    def predict(self, p: State, x: Tensor) -> Tensor:
        """[B] most likely classes; -1, which is nobody's, where the scores hold a NaN."""
        scores = self.logits(p, x)
        return torch.where(scores.isnan().any(-1), -1, scores.argmax(-1))

    def loss(self, p: State, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats over the unpadded samples; 0 for a batch of pure padding."""
        with training(batch.mask):
            scores = functional.log_softmax(self.logits(p, batch.x), -1)
        # a product with the one-hot labels, not a gather: deterministic backwards, and one kernel under vmap
        target = (batch.y[:, None] == torch.arange(scores.shape[-1], device=scores.device)) & batch.mask[:, None]
        return -(scores * target).sum() / batch.mask.sum().clamp(min=1)


def _slots(module: nn.Module) -> dict[str, Slot]:
    """Where each parameter and buffer of a skeleton hangs, by its name in a state."""
    found: dict[str, Slot] = {}
    for prefix, layer in module.named_modules():
        for held in (layer._parameters, layer._buffers):
            for key, empty in held.items():
                if empty is not None:
                    found[f"{prefix}.{key}" if prefix else key] = (held, key, empty)
    return found


def state_of(module: nn.Module, dtype: torch.dtype, device: torch.device) -> State:
    """Parameters and buffers of a module by name, as values of one floating type."""
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: value.detach().to(device=device, dtype=dtype, copy=True) for name, value in named.items()}


def make_task(
    model: Model,
    network: Network,
    device: torch.device,
    *,
    epochs: int,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> Task:
    """The task of one model, starting from the module's own weights."""
    start = state_of(model.module, network.dtype, device)
    parameters = tuple(name for name, _ in model.module.named_parameters())
    return Task(
        loss=network.loss,
        parameters=parameters,
        head=tuple(name for name in start if name.startswith(model.head + ".")),
        weights=tuple(name for name in parameters if start[name].ndim >= 2),
        start=start,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
    )
