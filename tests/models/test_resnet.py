"""Residual networks are torchvision's, weight for weight; both engines agree on them; files fit exactly or are refused."""

import pickle

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from worlds import played, world

from pflbench.baselines import METHODS
from pflbench.core import tree
from pflbench.core.errors import BadInput
from pflbench.core.local import collect_buffers, training
from pflbench.engine import engine
from pflbench.models import batchnorm, resnet, zoo
from pflbench.models.zoo import MODELS

PLAIN = {"stem": "imagenet"}


def build(depth=18, shape=(3, 32, 32), classes=10, seed=0, **fields):
    return zoo.build(MODELS.choose(f"resnet{depth}", fields), shape, classes, seed)


def images(count, *shape, seed=0):
    return torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_state(module, seed=1):
    """A state dict with every number random, variances positive, so that no two layers or buffers can be mixed up."""
    chance = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in module.state_dict().items():
        noise = torch.randn(value.shape, generator=chance)
        state[name] = 0.5 + noise.abs() if "running_var" in name else noise * (0.1 if value.ndim > 1 else 1.0)
        if name.endswith("num_batches_tracked"):
            state[name] = value
    return state


@pytest.mark.parametrize("depth", resnet.DEPTHS)
def test_equals_torchvision(depth):
    """Same state: same outputs at an evaluation; in training same outputs, gradients and new running statistics."""
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
    state = random_state(theirs)
    theirs.load_state_dict(state)
    ours = build(depth, **PLAIN).module
    ours.load_state_dict({name: value for name, value in state.items() if not name.endswith("num_batches_tracked")})
    theirs, ours = theirs.double(), ours.double()
    x = images(3, 3, 40, 36)
    theirs.eval()
    scale = float(theirs(x).detach().abs().max())
    assert torch.allclose(ours(x), theirs(x), rtol=0, atol=1e-10 * scale)
    theirs.train()
    expected = theirs(x)
    with training(torch.ones(3, dtype=torch.bool)), collect_buffers() as seen:
        got = ours(x)
    scale = float(expected.detach().abs().max())
    assert torch.allclose(got, expected, rtol=0, atol=1e-10 * scale)
    statistics = {name: value for name, value in theirs.named_buffers() if not name.endswith("num_batches_tracked")}
    assert seen.keys() == statistics.keys()
    assert all(torch.allclose(seen[name], value, rtol=1e-10, atol=1e-12) for name, value in statistics.items())
    got.square().sum().backward()
    expected.square().sum().backward()
    mine = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        largest = float(parameter.grad.abs().max())
        assert torch.allclose(mine[name].grad, parameter.grad, rtol=0, atol=1e-8 * largest), name


def test_first_weights_follow_torchvision_s_law():
    """He et al. 2015 for convolutions, fan-out: variance 2 / (k k out); norm layers start as the identity."""
    module = build(18).module
    weight = module.layer4[0].conv1.weight  # 256 channels in, 512 out
    assert float(weight.detach().std()) == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)
    assert float(module.bn1.weight.detach().min()) == 1
    assert float(module.bn1.bias.detach().abs().max()) == 0


def test_cifar_form_keeps_small_images_large():
    """3x3 stem without pooling: the last stage still sees 4x4 of 32x32; torchvision's form sees one pixel."""
    seen = {}
    for stem in ("cifar", "imagenet"):
        module = build(18, stem=stem, width=8).module
        module.layer4.register_forward_hook(lambda _, __, out, stem=stem: seen.__setitem__(stem, out.shape[2:]))
        module(torch.zeros(1, 3, 32, 32))
    assert seen == {"cifar": (4, 4), "imagenet": (1, 1)}


def test_the_stem_follows_the_size_of_the_images_if_not_told():
    kernels = [build(18, (3, side, side), width=8).module.conv1.kernel_size for side in (32, 63, 64, 224)]
    assert kernels == [(3, 3), (3, 3), (7, 7), (7, 7)]


def test_sizes_published_for_cifar():
    """Numbers of parameters: 11.17 M and 21.28 M for the CIFAR forms in wide use, 11.69 M and 25.56 M for ImageNet's."""
    count = lambda model: sum(parameter.numel() for parameter in model.module.parameters())  # noqa: E731
    assert count(build(18)) == 11_173_962
    assert count(build(34)) == 21_282_122
    assert count(build(18, classes=1000, **PLAIN)) == 11_689_512
    assert count(build(50, classes=1000, **PLAIN)) == 25_557_032


def test_groups_of_eight_channels():
    module = build(50, width=16, norm="group").module
    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.GroupNorm)]
    assert {layer.num_channels // layer.num_groups for layer in norms} == {8}
    assert not [layer for layer in module.modules() if isinstance(layer, batchnorm.BatchNorm2d)]
    assert not dict(module.named_buffers())


def small(depth=18, **fields):
    return lambda: build(depth, (1, 4, 4), 3, width=8, **fields)


def gap(one, other):
    leaves = tree.flatten(tree.each(lambda a, b: (a - b).abs().max(), tuple(one), tuple(other)))
    return max(float(leaf) for leaf in leaves.values())


@pytest.mark.parametrize(
    ("depth", "fields"), [(18, {"norm": "batch"}), (18, {"norm": "group"}), (18, PLAIN), (50, {"norm": "batch"})]
)
def test_loop_equals_vmap(depth, fields):
    """Full and padded batches. A batch of one image makes a deep BatchNorm network chaotic, and rounding with it."""
    method = METHODS.get("fedavg")()
    calm = {"sizes": (16, 12, 15), "cohort_size": 3, "batch_size": 8, "epochs": 1, "momentum": 0.0, "weight_decay": 0.0}
    loop, vmap = (
        played(world(method, engine=way, model=small(depth, **fields), **calm), 1) for way in ("loop", "vmap")
    )
    assert gap(loop, vmap) < 1e-10
    assert gap(loop, engine.start(world(method, model=small(depth, **fields), **calm))) > 1e-2


@pytest.mark.parametrize("way", ["loop", "vmap"])
def test_two_runs_are_equal_bit_for_bit(way):
    made = world(METHODS.get("ditto")(), engine=way, model=small(), precision="float32", epochs=1, chunk=2)
    first, second, threaded = (
        tree.flatten(tuple(played(world_, 1)))
        for world_ in (
            made,
            made,
            world(made.method, engine=way, model=small(), precision="float32", epochs=1, chunk=2, threads=3),
        )
    )
    assert all(torch.equal(first[name], second[name]) and torch.equal(first[name], threaded[name]) for name in first)


# Pretrained weights


@pytest.fixture
def reference():
    """A torchvision state dict of 1,000 classes."""
    return random_state(torchvision.models.resnet18(num_classes=10))


def put(path, state):
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
def test_pretrained_weights_are_the_file_s(tmp_path, reference, file):
    path = put(tmp_path / file, reference)
    state = build(18, pretrained=path, **PLAIN).module.state_dict()
    assert all(torch.equal(state[name], reference[name]) for name in state)
    other = build(18, classes=7, pretrained=path, seed=5, **PLAIN).module.state_dict()
    fresh = build(18, classes=7, seed=5, **PLAIN).module.state_dict()
    assert all(torch.equal(other[name], (fresh if name.startswith("fc.") else reference)[name]) for name in other)
    assert not torch.equal(fresh["conv1.weight"], reference["conv1.weight"])  # never without being asked for


@pytest.mark.parametrize(
    ("fields", "change", "message"),
    [
        (
            {"stem": "cifar"},
            {},
            r"does not fit this model: conv1.weight has shape \(64, 3, 7, 7\), the model's \(64, 3, 3, 3\)",
        ),
        ({"norm": "group", **PLAIN}, {}, r"does not fit this model: bn1.running_mean, .* in one of them only"),
        (PLAIN, {"layer4.1.bn2.bias": None}, r"does not fit this model: layer4.1.bn2.bias in one of them only"),
        (PLAIN, {"extra": torch.zeros(1)}, r"does not fit this model: extra in one of them only"),
        (PLAIN, {"note": "text"}, r"must hold a state dict: names and tensors, nothing else"),
        ({"width": 8, **PLAIN}, {}, r"does not fit this model: "),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, reference, fields, change, message):
    state = {name: value for name, value in {**reference, **change}.items() if value is not None}
    with pytest.raises(BadInput, match=f"^model.pretrained = .*: {message}"):
        build(18, pretrained=put(tmp_path / "weights.pth", state), **fields)


def test_files_that_are_no_weights_are_refused_and_run_no_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "mark"), "w")

    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb()))
    torch.save({"bomb": Bomb()}, tmp_path / "zip.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    for name in ("bomb.pth", "zip.pth", "cut.safetensors", "absent.pth"):
        with pytest.raises(BadInput, match=rf"^model.pretrained = .*{name}: cannot be read \("):
            build(18, pretrained=str(tmp_path / name), **PLAIN)
    assert not (tmp_path / "mark").exists()
