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
from pflbench.core.fields import hyper
from pflbench.core.registry import Chosen, Functions, Thing
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
        module = resnet.make(depth, shape, classes, norm=norm, width=width, stem=stem, pretrained=pretrained)
        return Model(module, "fc", convolutional=True)

    factory.__doc__ = f"ResNet-{depth} (He et al., CVPR 2016, arXiv 1512.03385) for 32x32 images or larger ones."
    return factory


def auto(shape: Shape, classes: int) -> Model:
    """The mlp for the digits, the cnn for any other data set."""
    raise NotImplementedError("an experiment says which")


class _Models(Functions):
    def meant(self, name: str, others: Mapping[str, Chosen]) -> str:
        """``auto`` is a rule on the name of the data set."""
        if name != "auto":
            return name
        return "mlp" if others["dataset"].name == "digits" else "cnn"

    def identity(self, thing: Thing, fields: Mapping[str, Any], root: Path | None) -> str | None:
        """Of the weights that it starts from, or of a user's own code."""
        weights = fields.get("pretrained")
        return resnet.digest(Path(weights)) if weights else thing.digest


SMALLEST = {"cnn_small": 4, "cnn": 16} | {f"resnet{depth}": 8 for depth in resnet.DEPTHS}  # pixels a side
RESNETS = {f"resnet{depth}": _resnet(depth) for depth in resnet.DEPTHS}
MODELS = _Models("model", {"auto": auto, "mlp": mlp, "cnn_small": cnn_small, "cnn": cnn, **RESNETS})


def refuse_small(chosen: Chosen, shape: Shape) -> None:
    """Raises BadInput for images with fewer pixels a side than the model is made for."""
    least, (_, height, width) = SMALLEST.get(chosen.name, 1), shape
    if min(height, width) < least:
        raise BadInput("model", chosen.name, f"needs images of {least}x{least} or more; these have {height}x{width}")


def build(chosen: Chosen, shape: Shape, classes: int, seed: int) -> Model:
    """The model with weights drawn from ``seed`` alone. Raises BadInput if it is no model or does not fit the images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = chosen.make(shape, classes)
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
