"""Models by name: factories of plain ``nn.Module`` and the name of each one's head.

A factory is a function ``(shape, classes, *, fields)``; a user's own may return a plain ``nn.Module``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from pflbench.core.errors import BadInput
from pflbench.core.fields import hyper, pick, resolve
from pflbench.core.registry import Chosen, Functions, agreed
from pflbench.models import batchnorm, resnet

Shape = tuple[int, int, int]  # channels, height, width
Norm = Annotated[
    Literal["none", "batch", "group"], hyper("normalisation after each convolution; group: 8 channels a group")
]


@dataclass(frozen=True)
class Model:
    """A module, the prefix of its head's names, and whether its time goes into convolutions."""

    module: nn.Module
    head: str
    convolutional: bool


def mlp(
    shape: Shape, classes: int, *, hidden: Annotated[int, hyper("width of the hidden layer", ge=1, le=65_536)] = 64
) -> Model:
    """One hidden layer (64-64-10 on the digits)."""
    pixels = shape[0] * shape[1] * shape[2]
    body = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU())
    return Model(_Net(body, nn.Linear(hidden, classes)), "head", convolutional=False)


def cnn_small(
    shape: Shape,
    classes: int,
    *,
    width: Annotated[int, hyper("channels of the first layer", ge=8, le=4096, multiple_of=8)] = 16,
    norm: Norm = "none",
) -> Model:
    """Two 3x3 convolutions and one hidden layer of 64, for 8x8 images (any size from 4x4 works)."""
    _at_least(shape, 4, "cnn_small")
    channels, height, cols = shape
    body = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), *_norm(norm, width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), *_norm(norm, 2 * width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2 * width * (height // 4) * (cols // 4), 64), nn.ReLU(),
    )  # fmt: skip
    return Model(_Net(body, nn.Linear(64, classes)), "head", convolutional=True)


def cnn(
    shape: Shape,
    classes: int,
    *,
    hidden: Annotated[int, hyper("width of the hidden layer", ge=1, le=65_536)] = 512,
    norm: Norm = "none",
) -> Model:
    """The field's two-convolution CNN (McMahan et al. 2017 and later): 32 and 64 channels 5x5, pooled, 512 hidden."""
    _at_least(shape, 16, "cnn")
    channels, height, cols = shape
    side = [((size - 4) // 2 - 4) // 2 for size in (height, cols)]
    body = nn.Sequential(
        nn.Conv2d(channels, 32, 5), *_norm(norm, 32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5), *_norm(norm, 64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * side[0] * side[1], hidden), nn.ReLU(),
    )  # fmt: skip
    return Model(_Net(body, nn.Linear(hidden, classes)), "head", convolutional=True)


def _resnet(depth: int) -> Callable[..., Model]:
    def factory(
        shape: Shape,
        classes: int,
        *,
        norm: resnet.Norm = "batch",
        width: resnet.Width = 64,
        stem: resnet.Stem = "auto",
        pretrained: resnet.Pretrained = "",
    ) -> Model:
        _at_least(shape, 8, f"resnet{depth}")
        module = resnet.make(depth, shape, classes, norm=norm, width=width, stem=stem, pretrained=pretrained)
        return Model(module, "fc", convolutional=True)

    factory.__doc__ = f"ResNet-{depth} (He et al., CVPR 2016, arXiv 1512.03385) for 32x32 images or larger ones."
    return factory


class _Models(Functions):
    def choose(self, name: str, given: Mapping[str, Any] | None = None, **more: Any) -> Chosen:
        """Called with a shape and a number of classes, it makes a module. ``auto`` is a rule on the data set's name.

        digest: of the weights it starts from, or of a user's own code.
        """
        if name == "auto":
            name = "mlp" if more["others"]["dataset"].name == "digits" else "cnn"
        thing = self.find(pick(name, [*self.names(), "auto"], self.noun) if not name.endswith(self.suffixes) else name)
        fields = resolve(thing.target, given or {}, f"{self.noun} {name}")
        weights = fields.get("pretrained")
        found = thing.digest or (resnet.digest(Path(weights)) if weights else None)
        return Chosen(name, fields, agreed(name, more.get("digest"), found), thing.target)


RESNETS = {f"resnet{depth}": _resnet(depth) for depth in resnet.DEPTHS}
MODELS = _Models("model", {"mlp": mlp, "cnn_small": cnn_small, "cnn": cnn, **RESNETS})


def build(chosen: Chosen, shape: Shape, classes: int, seed: int) -> Model:
    """The model with weights drawn from ``seed`` alone. Raises BadInput if it is no model or does not fit the images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = chosen(shape, classes)
    model = wrapped(made, chosen.name) if isinstance(made, nn.Module) else made
    if not isinstance(model, Model):
        raise BadInput("model", chosen.name, "must return a torch.nn.Module")
    batchnorm.name(model.module)
    return model


def wrapped(module: nn.Module, name: str) -> Model:
    """A user's own module; its head is its last linear layer. Raises BadInput if it has none."""
    linear = [path for path, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise BadInput("model", name, "needs a linear layer, whose last is taken to be its head")
    convolutional = any(isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) for layer in module.modules())
    return Model(module, linear[-1], convolutional)


def _at_least(shape: Shape, side: int, name: str) -> None:
    """Raises BadInput for images of fewer than ``side`` pixels a side."""
    if min(shape[1:]) < side:
        raise BadInput("model", name, f"needs images of {side}x{side} or more; these have {shape[1]}x{shape[2]}")


def _norm(kind: str, channels: int) -> list[nn.Module]:
    """The normalisation layer of ``kind``, if any."""
    layers: dict[str, list[nn.Module]] = {
        "none": [],
        "batch": [batchnorm.BatchNorm2d(channels)],
        "group": [nn.GroupNorm(channels // 8, channels)],
    }
    return layers[kind]


class _Net(nn.Module):
    """A body and a head; parameter names start with ``body.`` or ``head.``."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits
