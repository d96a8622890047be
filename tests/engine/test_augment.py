"""Augmentation: torchvision's transforms on the same draws, the same for every method and engine, and nothing else moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import functional
from worlds import SIZES, played, world

from pflbench.baselines import METHODS
from pflbench.core import tree
from pflbench.engine import engine
from pflbench.engine.task import PAD, Pixels, distorted


def method(name):
    return METHODS.get(name)()


def leaves(federation):
    return tree.flatten(tuple(federation))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 6, 9)])
def test_equals_torchvision_on_the_same_draws(shape):
    """Every corner and both directions: pad with zeros, crop, turn left and right, then scale and normalise."""
    chance = torch.Generator().manual_seed(0)
    crop = torch.cartesian_prod(torch.arange(2 * PAD + 1), torch.arange(2 * PAD + 1)).repeat(2, 1)
    flip = torch.arange(len(crop)) < len(crop) // 2
    x = torch.randint(0, 256, (len(crop), *shape), dtype=torch.uint8, generator=chance)
    mean, std = (torch.rand(shape[0], 1, 1, generator=chance) for _ in range(2))
    index = torch.randperm(len(x), generator=chance)
    draws = {"index": index, "mask": torch.ones(len(x), dtype=torch.bool), "crop": crop, "flip": flip}
    batch = Pixels(x, index, mean, std).batch(draws)
    assert torch.equal(batch.y, index[index])
    for k, image in enumerate(batch.x):
        padded = functional.pad(x[index[k]], [PAD] * 4)
        top, left = crop[k].tolist()
        cut = functional.crop(padded, top, left, *shape[1:])
        turned = functional.hflip(cut) if flip[k] else cut
        scaled = functional.normalize(turned.float() / 255, mean.flatten().tolist(), std.flatten().tolist())
        assert torch.allclose(image, scaled, rtol=1e-6, atol=1e-6)
        assert torch.equal(distorted(x[index[k]][None], crop[k : k + 1], flip[k : k + 1])[0], turned)


def test_the_middle_crop_without_a_turn_is_the_image():
    x = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(distorted(x, torch.full((5, 2), PAD), torch.zeros(5, dtype=torch.bool)), x)


def test_works_for_a_cohort_at_once():
    chance = torch.Generator().manual_seed(2)
    x = torch.randint(0, 256, (4, 6, 3, 8, 8), dtype=torch.uint8, generator=chance)
    crop = torch.randint(0, 2 * PAD + 1, (4, 6, 2), generator=chance)
    flip = torch.rand(4, 6, generator=chance) < 0.5
    together = torch.func.vmap(distorted)(x, crop, flip)
    assert torch.equal(together, torch.stack([distorted(*one) for one in zip(x, crop, flip, strict=True)]))


@pytest.mark.parametrize("name", ["fedavg", "ditto"])
def test_loop_equals_vmap(name):
    """And it does something."""
    loop, vmap, plain = (
        played(world(method(name), engine=way, augment=augment))
        for way, augment in (("loop", "crop_flip"), ("vmap", "crop_flip"), ("loop", "none"))
    )
    gaps = [float((value - leaves(vmap)[key]).abs().max()) for key, value in leaves(loop).items()]
    assert max(gaps) < 1e-10
    assert any(float((value - leaves(plain)[key]).abs().max()) > 1e-3 for key, value in leaves(loop).items())


def feeds(made, clients=(0, 1, 3), epochs=2, stage="contribute", to_longest=False):
    return engine._feeds(made, np.array(clients), 4, stage, epochs, to_longest)[0]


def test_nothing_is_drawn_that_was_not_drawn_before():
    """Batches are the same with and without; without, there are no other draws."""
    plain, changed = (feeds(world(method("fedavg"), augment=augment)) for augment in ("none", "crop_flip"))
    assert plain.keys() == {"index", "mask"}
    assert changed.keys() == {"index", "mask", "crop", "flip"}
    assert all(torch.equal(plain[key], changed[key]) for key in plain)
    assert changed["crop"].shape == (*plain["index"].shape, 2)
    assert changed["flip"].shape == plain["index"].shape


def test_draws_belong_to_a_client_a_stage_and_an_epoch():
    """Not to its neighbours, the method, the batch size or the number of epochs."""
    made = world(method("fedavg"), augment="crop_flip")
    mine = lambda draws, row: draws["crop"][row, :2].flatten(1, 2)[:, : SIZES[3]]  # noqa: E731
    first = mine(feeds(made), 2)
    for other in (
        mine(feeds(made, clients=(3,)), 0),
        mine(feeds(made, epochs=5), 2),
        mine(feeds(made, to_longest=True), 2),
        mine(feeds(replace(made, method=method("ditto"))), 2),
        mine(feeds(replace(made, batch_size=3)), 2),
    ):
        assert torch.equal(first, other)
    assert not torch.equal(first[0], mine(feeds(made, stage="personalise"), 2)[0])
    assert not torch.equal(first[0], first[1])
    neighbour = feeds(made)["crop"][1, :2].flatten(1, 2)[:, : SIZES[3]]
    assert not torch.equal(first[0], neighbour[0])
    assert not torch.equal(first[0], mine(feeds(replace(made, seed=12)), 2)[0])


def test_corners_and_turns_are_uniform():
    made = world(method("fedavg"), augment="crop_flip", sizes=(4000, 10))
    draws = feeds(made, clients=(0,), epochs=10)
    corners = draws["crop"].flatten(0, 3)
    for axis in range(2):
        counts = corners[:, axis].bincount(minlength=2 * PAD + 1)
        assert len(counts) == 2 * PAD + 1
        assert float((counts / (len(corners) / (2 * PAD + 1)) - 1).abs().max()) < 0.05
    assert abs(float(draws["flip"].double().mean()) - 0.5) < 0.01
    together = (corners[:, 0] * (2 * PAD + 1) + corners[:, 1]).bincount(minlength=(2 * PAD + 1) ** 2)
    assert int(together.min()) > 0


def test_what_is_evaluated_is_never_augmented():
    """Images for evaluations do not depend on the field, and padding stays padding."""
    made = world(method("fedavg"), augment="crop_flip")
    plain = world(method("fedavg"))
    index = torch.arange(5)
    assert torch.equal(made.pixels.images(index), plain.pixels.images(index))
    draws = feeds(made, clients=(0, 1))
    assert not draws["flip"][~draws["mask"]].any()
