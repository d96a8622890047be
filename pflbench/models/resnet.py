"""Residual networks: He et al., Deep residual learning for image recognition, CVPR 2016, arXiv 1512.03385.

Names of parameters and buffers are torchvision's, so its state dicts fit. Departures from the paper, as in torchvision:
the stride of a bottleneck is at its 3x3 convolution, and 1x1 projections wherever a shape changes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from pflbench.core import files
from pflbench.core.errors import BadInput
from pflbench.core.fields import hyper
from pflbench.models import batchnorm

Norm = Annotated[Literal["batch", "group"], hyper("normalisation; group: 8 channels a group", source="paper: batch")]
Stem = Annotated[
    Literal["auto", "cifar", "imagenet"],
    hyper("first layers; cifar: 3x3, imagenet: 7x7 with stride 2 and pooling, auto: imagenet from 64 pixels on"),
]
Width = Annotated[
    int, hyper("channels of the first stage, doubled in each later one", source="paper", ge=8, le=4096, multiple_of=8)
]
Pretrained = Annotated[
    str, hyper("file of a torchvision state dict; its head is used only if it has as many classes; empty: none")
]

DEPTHS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True)}  # blocks, bottlenecks or not
EXPANSION = 4  # channels of a bottleneck's end, in units of its width
LARGE = 64  # pixels per side from which the stem of torchvision's form is the usual one


class Block(nn.Module):
    """``relu(F(x) + shortcut(x))``. F: two 3x3 convolutions, or, ``deep``, a bottleneck of 1x1, 3x3 and 1x1."""

    def __init__(self, channels: int, width: int, stride: int, *, deep: bool, norm: str) -> None:
        super().__init__()
        plain = [(channels, width, 3, stride), (width, width, 3, 1)]
        bottleneck = [(channels, width, 1, 1), (width, width, 3, stride), (width, EXPANSION * width, 1, 1)]
        self._layers = bottleneck if deep else plain
        for number, (before, after, size, step) in enumerate(self._layers, 1):
            self.add_module(f"conv{number}", _conv(before, after, size, step))
            self.add_module(f"bn{number}", _norm(norm, after))
        out = self._layers[-1][1]
        same = stride == 1 and channels == out
        shortcut = [] if same else [_conv(channels, out, 1, stride), _norm(norm, out)]
        self.downsample = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        branch = x
        for number in range(1, len(self._layers) + 1):
            branch = torch.relu(branch) if number > 1 else branch
            branch = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(branch))
        return torch.relu(branch + self.downsample(x))


class ResNet(nn.Module):
    """blocks: how many in each of the four stages. stem: ``cifar`` or ``imagenet``."""

    def __init__(
        self, blocks: Sequence[int], channels: int, classes: int, *, deep: bool, norm: str, width: int, stem: str
    ) -> None:
        super().__init__()
        self._imagenet = stem == "imagenet"
        self.conv1 = _conv(channels, width, 7, 2) if self._imagenet else _conv(channels, width, 3)
        self.bn1 = _norm(norm, width)
        now = width
        for stage, count in enumerate(blocks):
            layers = []
            for number in range(count):
                stride = 2 if stage and not number else 1
                layers.append(Block(now, width << stage, stride, deep=deep, norm=norm))
                now = (width << stage) * (EXPANSION if deep else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(now, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, classes] for x: [B, channels, height, width]."""
        x = torch.relu(self.bn1(self.conv1(x)))
        if self._imagenet:
            x = nn.functional.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def make(
    depth: int, shape: tuple[int, int, int], classes: int, *, norm: str, width: int, stem: str, pretrained: str
) -> ResNet:
    """A network for images of ``shape``, its weights drawn from torch's generator or read from ``pretrained``."""
    blocks, deep = DEPTHS[depth]
    chosen = ("imagenet" if min(shape[1:]) >= LARGE else "cifar") if stem == "auto" else stem
    module = ResNet(blocks, shape[0], classes, deep=deep, norm=norm, width=width, stem=chosen)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if pretrained:
        load_pretrained(module, Path(pretrained))
    return module


def load_pretrained(module: ResNet, path: Path) -> None:
    """Puts the file's weights and buffers into ``module``; the head keeps its own if its number of classes differs.

    Raises BadInput if anything else differs: nothing is left out or made up.
    """
    found = {name: value for name, value in _read(path).items() if not name.endswith("num_batches_tracked")}
    wanted = module.state_dict()
    heads = {"fc.weight", "fc.bias"}
    if any(name in found and found[name].shape != wanted[name].shape for name in heads):
        found = {name: wanted[name] if name in heads else value for name, value in found.items()}
    differ = sorted(found.keys() ^ wanted.keys())
    if differ:
        raise BadInput(
            "model.pretrained", path, f"does not fit this model: {', '.join(differ[:3])} in one of them only"
        )
    for name, value in found.items():
        if value.shape != wanted[name].shape:
            shapes = f"{tuple(value.shape)}, the model's {tuple(wanted[name].shape)}"
            raise BadInput("model.pretrained", path, f"does not fit this model: {name} has shape {shapes}")
    module.load_state_dict(found)


def digest(path: Path) -> str:
    """What identifies the tensors of a file, 16 hex digits: names, shapes and bits. Raises BadInput."""
    return files.fingerprint(_read(path))[:16]


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, safetensors or torch's own; of the latter only tensors are unpickled."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            held: Any = load_file(path)
        else:
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, safetensors and the file system raise a dozen kinds
        text = " ".join(str(error).split())[:200]
        raise BadInput("model.pretrained", path, f"cannot be read ({type(error).__name__}: {text})") from None
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise BadInput("model.pretrained", path, "must hold a state dict: names and tensors, nothing else")
    return held


def _conv(channels: int, out: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, size, stride, size // 2, bias=False)


def _norm(kind: str, channels: int) -> nn.Module:
    return batchnorm.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(channels // 8, channels)
