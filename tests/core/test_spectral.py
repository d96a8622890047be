"""The spectral term: its definition on the full plane, its gradient, its bins, and the method built on it."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pflbench.baselines.fedavg import FedAvg
from pflbench.baselines.local_only import LocalOnly
from pflbench.baselines.spectral import SpectralCoDistillation
from pflbench.core.local import Batch, Feed, Task, plain
from pflbench.core.spectrum import Bins, Selection, _hashed, bins, calibrated, distance, spectrum

DIVERGENCES = ["kl", "kl_reverse", "symmetric", "amplitude_l2", "complex_l2"]
KEEPS = ["low", "high", "random", "prefix"]
LAYOUTS = ["vector", "layer", "matrix"]
NORMALISES = ["global", "per_layer", "none"]
SIZES = [(5, 7), (4, 2, 1, 3), (3, 9), (6, 4)]  # odd and even fan-in, odd and even rows, one convolution
SHAPES = tuple((size[0], math.prod(size[1:])) for size in SIZES)
CPU = torch.device("cpu")


def weights(seed: int, sizes=SIZES, dtype=torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator, dtype=dtype) for size in sizes]


def near(ws: list[Tensor], step: float, seed: int = 9) -> list[Tensor]:
    return [w + step * d for w, d in zip(ws, weights(seed, [w.shape for w in ws], ws[0].dtype), strict=True)]


def table(plan: Selection) -> Bins:
    return bins(plan, CPU, torch.float64)


def per_layer(plan: Selection, name: str) -> list[Tensor]:
    """``times`` or ``kept`` of every block as a half plane."""
    parts = getattr(table(plan), name).split(table(plan).sizes)
    return [part.view(block[0], -1) for part, block in zip(parts, plan.blocks, strict=True)]


def full_masks(plan: Selection) -> list[Tensor]:
    """The kept bins on the full plane: entry (u, v) of the right half is that of its conjugate partner (-u, -v)."""
    masks = []
    for (rows, columns), half in zip(plan.blocks, per_layer(plan, "kept"), strict=True):
        mask = torch.zeros(rows, columns, dtype=torch.float64)
        for u in range(rows):
            for v in range(columns):
                mask[u, v] = half[u, v] if v <= columns // 2 else half[-u % rows, columns - v]
        masks.append(mask)
    return masks


def planes(ws, plan: Selection, norm: str = "backward") -> list[Tensor]:
    """The whole spectra of one vector, of one vector per weight or of one matrix per weight."""
    if plan.layout == "vector":
        return [torch.fft.fft(torch.cat([w.reshape(-1) for w in ws]), norm=norm)[None]]
    if plan.layout == "layer":
        return [torch.fft.fft(w.reshape(-1), norm=norm)[None] for w in ws]
    return [torch.fft.fft2(w.reshape(w.shape[0], -1), norm=norm) for w in ws]


def definition(pm, gm, plan: Selection, divergence: str, normalise: str = "global", smoothing: float = 1e-6) -> Tensor:
    """D on the full plane, differentiated by autograd: nothing of it is shared with the module."""
    l2 = divergence.endswith("_l2")

    def spectra(ws):
        whole = planes(ws, plan, "ortho" if l2 else "backward")
        powers = [f.real**2 + f.imag**2 for f in whole]
        amplitudes = [(p + smoothing**2 * p.mean()).sqrt() for p in powers]
        if l2:
            return whole if divergence == "complex_l2" else amplitudes
        if normalise == "none":
            return amplitudes
        if normalise == "per_layer":
            return [a / a.sum() / len(amplitudes) for a in amplitudes]
        return [a / sum(a.sum() for a in amplitudes) for a in amplitudes]

    def kl(p, q):
        return p * (p / q).log() - p + q

    each = {
        "kl": kl,
        "kl_reverse": lambda p, q: kl(q, p),
        "symmetric": lambda p, q: (kl(p, q) + kl(q, p)) / 2,
        "amplitude_l2": lambda p, q: (p - q) ** 2 / 2,
        "complex_l2": lambda p, q: (p - q).abs() ** 2 / 2,
    }[divergence]
    masks = full_masks(plan)
    return sum((m * each(p, q)).sum() for m, p, q in zip(masks, spectra(pm), spectra(gm), strict=True))


def value_and_gradient(apart, ws: list[Tensor]) -> tuple[Tensor, Tensor]:
    gradient, value = torch.func.grad_and_value(lambda moving: apart(list(moving)))(tuple(ws))
    return value, torch.cat([g.flatten() for g in gradient])


# --- the divergence and its gradient ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("normalise", NORMALISES)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_half_plane_equals_the_full_plane(divergence, normalise, layout):
    pm, gm = weights(0), weights(1)
    for keep, smoothing in zip(KEEPS, (1e-6, 1e-2, 0.1, 1e-6), strict=True):
        # odd sizes: the cut may fall between (u, 0) and its partner (-u, 0), which are two bins of the half plane
        plan = Selection(SHAPES, 0.4 if keep != "prefix" else (35 + 24) / 110, keep, layout=layout)
        expected = definition(pm, gm, plan, divergence, normalise, smoothing)
        assert expected > 1e-3
        for trains, moving, still in (("pm", pm, gm), ("gm", gm, pm)):
            got = distance(still, plan, divergence, trains, normalise, smoothing)(moving)
            torch.testing.assert_close(got, expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("trains", ["pm", "gm"])
@pytest.mark.parametrize("tau", [1.0, 0.4])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradient_is_not_zero_and_equals_finite_differences(divergence, tau, trains):
    sizes = [(3, 5), (4, 1, 2, 2), (3, 5)]
    moving = [w.requires_grad_() for w in weights(2, sizes)]
    for normalise, layout, smoothing in product(NORMALISES, LAYOUTS, (1e-6, 0.1)):
        plan = Selection(tuple(sizes), tau, layout=layout)
        apart = distance(weights(3, sizes), plan, divergence, trains, normalise, smoothing)
        gradient = torch.autograd.grad(apart(moving), moving)
        assert all(g.norm() > 1e-3 for g in gradient)
        assert torch.autograd.gradcheck(lambda *ws: apart(ws), moving, atol=1e-9, rtol=1e-6)  # noqa: B023


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_single_precision_gradient_near_the_reference(divergence):
    still, plan = weights(4), Selection(SHAPES, 0.4)
    moving = near(still, 1e-2)
    _, exact = value_and_gradient(distance(still, plan, divergence, "gm"), moving)
    apart = distance([w.float() for w in still], plan, divergence, "gm")
    _, single = value_and_gradient(apart, [w.float() for w in moving])
    assert (single - exact).norm() < 1e-3 * exact.norm()


def test_smoothing_keeps_empty_bins_finite():
    """A constant matrix has one non-zero bin; all others are the smoothing alone, which grows with the matrix."""
    flat = [torch.full((4, 6), 0.5, dtype=torch.float64), weights(0, [(3, 5)])[0]]
    still = weights(1, [(4, 6), (3, 5)])
    for trains, layout, smoothing in product(("pm", "gm"), LAYOUTS, (1e-6, 1e-2)):
        plan = Selection(((4, 6), (3, 5)), layout=layout)
        value, gradient = value_and_gradient(distance(still, plan, "kl", trains, smoothing=smoothing), flat)
        pair = (lambda ws: (ws, still)) if trains == "pm" else (lambda ws: (still, ws))
        leaves = [w.clone().requires_grad_() for w in flat]
        expected = definition(*pair(leaves), plan, "kl", smoothing=smoothing)
        by_autograd = torch.cat([g.flatten() for g in torch.autograd.grad(expected, leaves)])
        torch.testing.assert_close(value, expected.detach())
        torch.testing.assert_close(gradient, by_autograd, rtol=1e-6, atol=1e-9 * float(by_autograd.norm()))
    plan = Selection(((4, 6), (3, 5)))
    for dtype in (torch.float32, torch.float64):
        empty = [torch.zeros(4, 6, dtype=dtype), flat[1].to(dtype)]
        value, gradient = value_and_gradient(distance([w.to(dtype) for w in still], plan, "kl", "gm"), empty)
        assert value.isfinite()
        assert gradient.isfinite().all()


def test_smoothing_by_hand():
    """A share of the rms: where all amplitudes are one, sqrt(1 + smoothing^2)."""
    w = [torch.zeros(1, 64, dtype=torch.float64)]
    w[0][0, 0] = 1.0  # flat spectrum: all 64 amplitudes are one
    flat = table(Selection(((1, 64),)))
    for smoothing in (1e-6, 0.1, 1.0):
        raw = spectrum(w, flat, "none", smoothing)
        torch.testing.assert_close(raw, torch.full_like(raw, math.sqrt(1 + smoothing**2)))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_identical_models_have_distance_zero_and_no_gradient(divergence):
    pm = weights(5)
    for tau, normalise, layout, trains in product((1.0, 0.4), NORMALISES, LAYOUTS, ("pm", "gm")):
        plan = Selection(SHAPES, tau, layout=layout)
        value, gradient = value_and_gradient(distance(pm, plan, divergence, trains, normalise, 1e-2), pm)
        assert value == 0
        assert gradient.norm() < 1e-14


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    step=st.floats(1e-3, 10),
    plan=st.builds(
        Selection, st.just(SHAPES), st.floats(0.01, 1), st.sampled_from(KEEPS), st.booleans(), st.sampled_from(LAYOUTS)
    ),
    divergence=st.sampled_from(DIVERGENCES),
    trains=st.sampled_from(["pm", "gm"]),
    normalise=st.sampled_from(NORMALISES),
    smoothing=st.floats(1e-6, 1),
)
def test_distance_is_never_negative_even_truncated(seed, step, plan, divergence, trains, normalise, smoothing):
    still = weights(seed)
    scale = float(spectrum(still, table(plan), normalise).sum())
    value = distance(still, plan, divergence, trains, normalise, smoothing)(near(still, step, seed + 1))
    assert value >= -1e-15 * max(1, scale)


@pytest.mark.parametrize("trains", ["pm", "gm"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_small_step_against_the_gradient_decreases_the_distance(divergence, trains):
    apart, moving = distance(weights(6), Selection(SHAPES, 0.4), divergence, trains), weights(7)
    gradient = torch.func.grad(lambda ws: apart(list(ws)))(tuple(moving))
    size = sum(g.square().sum() for g in gradient)
    step = 1e-3 * apart(moving) / size  # first order: the distance falls by a thousandth
    after = apart([w - step * g for w, g in zip(moving, gradient, strict=True)])
    assert 0.9e-3 < 1 - after / apart(moving) < 1.1e-3


def test_the_reference_gets_no_gradient():
    for divergence in DIVERGENCES:
        still, moving = [w.requires_grad_() for w in weights(0)], [w.requires_grad_() for w in weights(1)]
        value = distance(still, Selection(SHAPES, 0.4), divergence, "gm")(moving)
        assert torch.autograd.grad(value, still, allow_unused=True) == (None,) * len(still)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_vectorised_equals_one_client_at_a_time(divergence):
    twins = (*SHAPES[:2], SHAPES[0])  # equal shapes are transformed together
    for plan in (
        Selection(SHAPES, 0.4),
        *(Selection(SHAPES, 0.3, "random", permute=True, layout=layout) for layout in LAYOUTS),
        *(Selection(twins, 0.4, layout=layout) for layout in LAYOUTS),
    ):
        sizes = [*SIZES[:2], SIZES[0]] if plan.shapes == twins else SIZES
        cohort = [(weights(seed, sizes), weights(seed + 50, sizes)) for seed in range(3)]
        for normalise in NORMALISES:

            def client(moving, still, plan=plan, normalise=normalise):
                apart = distance(list(still), plan, divergence, "pm", normalise)
                return torch.func.grad_and_value(lambda ws: apart(list(ws)))(moving)

            bins.cache_clear()  # the tables are made under vmap here and used outside it below
            stacked = [
                tuple(torch.stack(layer) for layer in zip(*side, strict=True)) for side in zip(*cohort, strict=True)
            ]
            gradients, values = torch.func.vmap(client)(*stacked)
            for row, (moving, still) in enumerate(cohort):
                expected, value = client(tuple(moving), tuple(still))
                torch.testing.assert_close(values[row], value, rtol=1e-12, atol=0)
                for got, want in zip(gradients, expected, strict=True):
                    torch.testing.assert_close(got[row], want, rtol=1e-11, atol=1e-15)


def test_tables_may_be_made_inside_a_gradient():
    pm, gm, plan = tuple(weights(0)), weights(1), Selection(SHAPES, 0.4, "low", permute=True)
    bins.cache_clear()
    inside = torch.func.grad(lambda ws: distance(gm, plan, "kl", "pm")(list(ws)))(pm)
    outside = torch.func.grad(lambda ws: distance(gm, plan, "kl", "pm")(list(ws)))(pm)
    bins.cache_clear()
    _, fresh = value_and_gradient(distance(gm, plan, "kl", "pm"), list(pm))
    assert torch.equal(torch.cat([g.flatten() for g in inside]), fresh)
    assert torch.equal(torch.cat([g.flatten() for g in outside]), fresh)


# --- what the spectrum sees ------------------------------------------------------------------------------------------


def test_parseval_complex_l2_over_all_bins_is_the_pull_of_ditto():
    v, w = weights(0), weights(1)
    for permute, layout in product((False, True), LAYOUTS):
        plan = Selection(SHAPES, permute=permute, layout=layout)
        value, gradient = value_and_gradient(distance(w, plan, "complex_l2", "pm"), v)
        torch.testing.assert_close(value, sum((a - b).square().sum() for a, b in zip(v, w, strict=True)) / 2)
        torch.testing.assert_close(gradient, torch.cat([(a - b).flatten() for a, b in zip(v, w, strict=True)]))


def test_parseval_of_the_amplitudes():
    """Without normalisation or smoothing worth the name, squared amplitudes sum to the squared norm times the entries."""
    for layout in LAYOUTS:
        plan = Selection(SHAPES, layout=layout)
        a = spectrum(weights(0), table(plan), "none")
        for times, part, (rows, columns), block in zip(
            per_layer(plan, "times"), a.split(table(plan).sizes), plan.blocks, planes(weights(0), plan), strict=True
        ):
            power = (times * part.view_as(times).square()).sum() / (rows * columns)
            inverse = torch.fft.ifft2(block).real.square().sum()
            torch.testing.assert_close(power, inverse, rtol=1e-10, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_spectrum_is_one_probability_vector(layout):
    plan = Selection(SHAPES, layout=layout)
    for normalise in ("global", "per_layer"):
        s = spectrum(weights(0), table(plan), normalise)
        parts = zip(per_layer(plan, "times"), s.split(table(plan).sizes), strict=True)
        masses = [float((t * part.view_as(t)).sum()) for t, part in parts]
        assert sum(masses) == pytest.approx(1, abs=1e-14)
        if layout != "vector":
            assert (masses == pytest.approx([0.25] * 4, abs=1e-14)) == (normalise == "per_layer")


def test_one_block_has_one_normalisation():
    v, w, plan = weights(0), weights(1), Selection(SHAPES, 0.4, layout="vector")
    one, other = (value_and_gradient(distance(w, plan, "kl", "pm", n), v) for n in ("global", "per_layer"))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


def test_without_normalisation_the_divergence_grows_with_both_models():
    """D(c a || c b) = c D(a || b); calibration makes it as strong as the normalised one."""
    v, w = weights(0), weights(1)
    for layout in LAYOUTS:
        plan = Selection(SHAPES, 0.4, layout=layout)
        raw = distance(w, plan, "kl", "pm", "none")(v)
        tripled = distance([3 * x for x in w], plan, "kl", "pm", "none")([3 * x for x in v])
        torch.testing.assert_close(tripled, 3 * raw)
        squared = sum(x.square().sum() for x in w)
        total = sum(f.abs().sum() for f in planes(w, plan))
        torch.testing.assert_close(calibrated(w, plan, "none", 1e-6), squared / total, rtol=1e-9, atol=0)
        assert calibrated(w, plan, "global", 1e-6) == squared


def test_a_vector_of_one_layer_is_that_layer():
    v, w = weights(0, [(4, 6)]), weights(1, [(4, 6)])
    plans = [Selection(((4, 6),), 0.4, layout=layout) for layout in ("vector", "layer")]
    one, other = (value_and_gradient(distance(w, plan, "kl", "gm"), v) for plan in plans)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


def test_the_first_bins_of_a_vector_are_its_low_frequencies():
    """In the half spectrum exactly; of a full one, first tau n bins are half of the lowest 2 tau n - 1 and half the mean's."""
    v, w, n = weights(0), weights(1), 110
    for tau in (0.1, 0.4, 0.7):
        low, prefix = (Selection(SHAPES, tau, keep, layout="vector") for keep in ("low", "prefix"))
        assert torch.equal(table(low).kept, table(prefix).kept)
    amplitudes = [planes(x, Selection(SHAPES, layout="vector"))[0][0].abs() for x in (v, w)]
    p, q = (a / a.sum() for a in amplitudes)
    each = p * (p / q).log() - p + q
    for kept in (11, 44):
        low = distance(w, Selection(SHAPES, (2 * kept - 1) / n, layout="vector"), "kl", "pm")(v)
        torch.testing.assert_close(each[:kept].sum(), (low + each[0]) / 2)


def test_invariances_of_the_amplitude_spectrum():
    v, w, plan = weights(0), weights(1), Selection(SHAPES, 0.4)
    shifted = [x.flatten(1).roll((2, 1), (0, 1)) for x in w]
    doubled, rescaled = [2 * x for x in w], [(n + 1) * x for n, x in enumerate(w)]
    gm = [x.flatten(1) for x in v]
    for divergence in DIVERGENCES[:3]:
        apart = distance(gm, plan, divergence, "pm")
        layerwise = distance(gm, plan, divergence, "pm", "per_layer")
        torch.testing.assert_close(apart(shifted), apart(w))  # a cyclic shift changes the phase alone
        torch.testing.assert_close(apart(doubled), apart(w))  # one factor for all layers cancels
        torch.testing.assert_close(layerwise(rescaled), layerwise(w))  # and one per layer, per layer
        assert (apart(rescaled) - apart(w)).abs() > 1e-3
    assert distance(w, Selection(SHAPES), "complex_l2", "pm")(shifted) > 1


def test_unrelated_models_are_0_307_nats_apart():
    """Rayleigh amplitudes: E[a log a] / E[a] - E[log a] = 0.3648 - 0.0580."""
    pm, gm = weights(0, [(200, 200)]), weights(1, [(200, 200)])
    assert distance(gm, Selection(((200, 200),)), "kl", "pm")(pm).item() == pytest.approx(0.3068, abs=0.005)


@pytest.mark.parametrize(
    ("trains", "tau", "least", "most"), [("pm", 1.0, 0.9, 3.0), ("gm", 1.0, 1.5, 7.0), ("gm", 0.4, 0.9, 6.0)]
)
@pytest.mark.parametrize(("layout", "smoothing"), [("matrix", 1e-6), ("vector", 1e-6), ("vector", 0.2), ("layer", 0.2)])
@pytest.mark.parametrize("normalise", ["global", "none"])
def test_calibrated_one_pulls_about_as_hard_as_ditto_one(trains, tau, least, most, layout, smoothing, normalise):
    start = weights(0, [(64, 64), (10, 64)])
    moved = near(start, 0.03)
    plan = Selection(((64, 64), (10, 64)), tau, layout=layout)
    _, gradient = value_and_gradient(distance(start, plan, "kl", trains, normalise, smoothing), moved)
    unit = calibrated(start, plan, normalise, smoothing)
    ditto = sum((a - b).square().sum() for a, b in zip(moved, start, strict=True)).sqrt()
    if smoothing == 0.2:  # without the steep bins of small amplitude it is Ditto's pull, nearly
        least, most = (0.9, 1.1) if tau == 1 else (0.5, 0.8)
    assert least < unit * gradient.norm() / ditto < most


# --- which bins are kept ---------------------------------------------------------------------------------------------


def test_bins_of_a_4_by_4_layer_by_hand():
    plan = Selection(((4, 4),), 5 / 16)
    assert per_layer(plan, "times")[0].tolist() == [[1, 2, 1]] * 4
    # radius 0: (0, 0); radius 1/4: (0, 1) twice, (1, 0), (3, 0). Five of sixteen entries.
    assert per_layer(plan, "kept")[0].tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]]
    # radius sqrt(1/2): (2, 2); radius sqrt(5)/4: (1, 2), (3, 2), (2, 1) twice
    assert per_layer(replace(plan, keep="high"), "kept")[0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("keep", ["low", "high", "random"])
@pytest.mark.parametrize("tau", [0.1, 0.4, 0.5, 0.9])
def test_every_layer_keeps_tau_of_its_bins(tau, keep):
    plans = [Selection((*SHAPES, (32, 25)), tau, keep, layout=layout) for layout in LAYOUTS]
    assert [len(plan.blocks) for plan in plans] == [1, 5, 5]
    every = [
        row for plan in plans for row in zip(plan.blocks, *(per_layer(plan, n) for n in ("times", "kept")), strict=True)
    ]
    for (rows, columns), times, kept in every:
        assert times.sum() == rows * columns
        assert tau * rows * columns - 2 < (times * kept).sum() <= tau * rows * columns + 1e-6


def test_prefix_keeps_whole_first_layers_as_the_released_code_does():
    plan = Selection(SHAPES, 0.4, "prefix")  # 35 + 24 + 27 + 24 entries; 0.4 of them are 44
    first, second, third, fourth = per_layer(plan, "kept")
    times = per_layer(plan, "times")
    assert first.all()
    assert (times[1] * second).sum() in (8, 9)
    assert not third.any()
    assert not fourth.any()
    amplitudes = torch.cat([torch.fft.fft2(w.flatten(1)).abs().flatten() for w in weights(0)])
    spec = amplitudes / amplitudes.sum()
    whole = Selection(
        SHAPES, (35 + 24) / 110, "prefix"
    )  # the cut falls on a layer's edge: equal to a slice of the full plane
    mass = (table(whole).times * table(whole).kept * spectrum(weights(0), table(whole))).sum()
    torch.testing.assert_close(mass, spec[: int(len(spec) * whole.tau + 1e-9)].sum(), rtol=1e-10, atol=0)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), tau=st.floats(0.01, 0.99))
def test_low_and_high_are_complements_but_for_the_bin_on_the_cut(rows, columns, tau):
    """Disjoint; together all bins, less the one that straddles tau; none is missing if the low band fills tau exactly."""
    low, high = Selection(((rows, columns),), tau), Selection(((rows, columns),), 1 - tau, "high")
    both = table(low).kept + table(high).kept
    assert both.max() <= 1
    filled = float((table(low).times * table(low).kept).sum())
    assert (both == 0).sum() == (0 if abs(filled - tau * rows * columns) < 1e-6 else 1)


@pytest.mark.parametrize("keep", KEEPS)
def test_tau_one_keeps_everything(keep):
    assert all(table(Selection(SHAPES, 1.0, keep, layout=layout)).kept.all() for layout in LAYOUTS)


def test_a_slow_wave_along_the_vector_is_low_across_layers():
    """One wave over two layers end to end: low for the vector, a ramp with a broad spectrum for each layer."""
    wave = 1 + torch.cos(2 * math.pi * torch.arange(48, dtype=torch.float64) / 48)
    ws = [wave[:24].view(4, 6), wave[24:].view(2, 12)]
    mass = {}
    for layout in ("vector", "layer"):
        plan = Selection(((4, 6), (2, 12)), 0.1, layout=layout)
        mass[layout] = float((table(plan).times * table(plan).kept * spectrum(ws, table(plan))).sum())
    assert mass["vector"] > 0.999
    assert mass["layer"] < 0.8


def test_low_bins_are_the_low_frequencies():
    u, v = torch.arange(16.0, dtype=torch.float64)[:, None], torch.arange(20.0, dtype=torch.float64)
    plan = Selection(((16, 20),), 0.4)

    def mass(plan: Selection, w: Tensor) -> float:
        return float((table(plan).times * table(plan).kept * spectrum([w], table(plan))).sum())

    smooth = 1 + torch.cos(2 * math.pi * u / 16) * torch.cos(2 * math.pi * v / 20)
    rough = (-1.0) ** (u + v)
    assert mass(plan, smooth) > 0.999
    assert mass(plan, rough) < 0.001
    assert mass(replace(plan, keep="high"), rough) > 0.999
    assert 0.1 < mass(replace(plan, permute=True), smooth) < 0.8  # shuffled entries: no frequency is left


def test_random_bins_and_shuffles_are_fixed_permutations():
    assert _hashed(8, 0).tolist() == [0, 4, 5, 3, 1, 7, 2, 6]
    for count, layer in ((1, 0), (1000, 3)):
        assert _hashed(count, layer).sort().values.tolist() == list(range(count))
    assert _hashed(1000, 0).tolist() != _hashed(1000, 1).tolist()
    first, second = per_layer(Selection(((64, 64), (64, 64)), 0.4, "random"), "kept")
    assert not torch.equal(first, second)
    for block in (*first.split(16, dim=0), *first.split(11, dim=1)):  # bands of rows, bands of columns
        assert 0.3 < block.mean() < 0.5


def test_permute_is_the_distance_of_the_shuffled_weights():
    v, w = weights(0), weights(1)
    shuffle = [_hashed(x.numel(), layer) for layer, x in enumerate(v)]
    plan = Selection(SHAPES, 0.4, permute=True)
    joined = Selection(SHAPES, 0.4, permute=True, layout="vector")
    whole = _hashed(110, 0)
    vs, ws = ([torch.cat([x.flatten() for x in side])[whole][None]] for side in (v, w))
    expected = distance(ws, Selection(((1, 110),), 0.4), "kl", "pm")(vs)
    torch.testing.assert_close(distance(w, joined, "kl", "pm")(v), expected)
    for divergence in DIVERGENCES:
        vs, ws = ([x.flatten()[to].view_as(x) for x, to in zip(side, shuffle, strict=True)] for side in (v, w))
        value, gradient = value_and_gradient(distance(w, plan, divergence, "pm"), v)
        expected, shuffled = value_and_gradient(distance(ws, replace(plan, permute=False), divergence, "pm"), vs)
        torch.testing.assert_close(value, expected)
        parts = zip(gradient.split([x.numel() for x in v]), shuffle, strict=True)
        torch.testing.assert_close(torch.cat([g[to] for g, to in parts]), shuffled)


# --- the method ------------------------------------------------------------------------------------------------------


def world(seed: int = 0, learn: bool = True, **settings) -> tuple[Task, dict[str, Tensor], dict[str, Tensor], Feed]:
    """A linear-tanh-linear task with weights 5 x 6 and 3 x 5; ``learn`` False: the loss has no gradient."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    def state() -> dict[str, Tensor]:
        return {"a.weight": draw(5, 6), "a.bias": draw(5), "b.weight": draw(3, 5), "b.bias": draw(3), "mean": draw(5)}

    def loss(p, batch: Batch) -> Tensor:
        hidden = torch.tanh(batch.x @ p["a.weight"].T + p["a.bias"])
        each = torch.nn.functional.cross_entropy(hidden @ p["b.weight"].T + p["b.bias"], batch.y, reduction="none")
        return (each * batch.mask).sum() / batch.mask.sum() * (1.0 if learn else 0.0)

    x, y = draw(12, 6), torch.arange(12) % 3
    index = torch.stack([torch.randperm(12, generator=generator).view(3, 4) for _ in range(2)])
    feed = Feed(
        draws={"index": index, "mask": torch.ones(2, 3, 4, dtype=torch.bool)},
        make=lambda draws: Batch(x[draws["index"]], y[draws["index"]], draws["mask"]),
        decay=torch.tensor(1.0, dtype=torch.float64),
        whole=[[True] * 3] * 2,
        run=plain,
    )
    names = ("a.weight", "a.bias", "b.weight", "b.bias")
    task = Task(loss, names, ("b.weight", "b.bias"), ("a.weight", "b.weight"), state(), epochs=2, lr=0.1, **settings)
    return task, state(), state(), feed


def one_step(feed: Feed) -> Feed:
    return replace(feed, draws={name: draw[:1, :1] for name, draw in feed.draws.items()}, whole=[[True]])


def test_without_pull_it_is_fedavg_and_local_training_bit_for_bit():
    task, w, v, feed = world(momentum=0.5, weight_decay=1e-3)
    method = SpectralCoDistillation(lam_g=0.0, lam_p=0.0)
    broken = {name: torch.full_like(x, math.nan) for name, x in v.items()}  # the term is left out, not multiplied by 0
    upload, _ = method.contribute(task, w, {"v": broken}, feed)
    expected, _ = FedAvg().contribute(task, w, {}, feed)
    c = {"v": v, "own": broken}
    trained, local = method.personalise(task, broken, c, feed)["v"], LocalOnly().personalise(task, {}, v, feed)
    assert all(torch.equal(upload[name], expected[name]) for name in w)
    assert all(torch.equal(trained[name], local[name]) for name in v)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_one_step_of_both_phases_by_the_definition(divergence):
    """GM: minus the gradient of lam_g D over GM's argument, tau of the bins. PM: of lam_p D over PM's, all bins."""
    task, w, v, feed = world(learn=False)
    method = SpectralCoDistillation(
        lam_g=3.0, lam_p=2.0, scale="literal", tau=0.4, divergence=divergence, reference="received"
    )
    upload, c = method.contribute(task, w, {"v": v}, one_step(feed))
    trained = method.personalise(task, w, c, one_step(feed))["v"]
    for new, old, lam, tau, gm_moves in ((upload, w, 3.0, 0.4, True), (trained, v, 2.0, 1.0, False)):
        leaves = [old[name].clone().requires_grad_() for name in task.weights]
        pm, gm = ([v[name] for name in task.weights], leaves) if gm_moves else (leaves, [w[n] for n in task.weights])
        plan = Selection(((5, 6), (3, 5)), tau, layout=method.layout)
        gradient = torch.autograd.grad(lam * definition(pm, gm, plan, divergence, "global", method.smoothing), leaves)
        for name, g in zip(task.weights, gradient, strict=True):
            assert g.norm() > 1e-4
            torch.testing.assert_close(new[name], old[name] - 0.1 * g, rtol=1e-10, atol=1e-13)
        for name in ("a.bias", "b.bias", "mean"):
            assert torch.equal(new[name], old[name])


def test_calibrated_scale_by_hand():
    """5 x 6 twos and 3 x 5 ones: 30 * 4 + 15 = 135. Biases do not count; the L2 divergences keep their own scale."""
    task, w, v, feed = world(learn=False)
    start = {**w, "a.weight": torch.full((5, 6), 2.0).double(), "b.weight": torch.ones(3, 5).double()}
    task = replace(task, start=start)
    for divergence, factor in (("kl", 135.0), ("symmetric", 135.0), ("amplitude_l2", 1.0), ("complex_l2", 1.0)):
        ours = SpectralCoDistillation(lam_g=0.01, lam_p=0.02, divergence=divergence, reference="received")
        raw = replace(ours, lam_g=0.01 * factor, lam_p=0.02 * factor, scale="literal")
        for method, other in ((ours, raw),):
            upload, _ = method.contribute(task, w, {"v": v}, one_step(feed))
            expected, _ = other.contribute(task, w, {"v": v}, one_step(feed))
            torch.testing.assert_close(upload, expected, rtol=1e-12, atol=1e-14)
            got, want = (m.personalise(task, w, {"v": v}, one_step(feed)) for m in (method, other))
            torch.testing.assert_close(got["v"], want["v"], rtol=1e-12, atol=1e-14)
            assert not torch.equal(got["v"]["a.weight"], v["a.weight"])


@pytest.mark.parametrize("content", ["weights", "all"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_step_of_every_reading(layout, content):
    """What moves is what is in the spectrum; every reading's step is that of its definition, in its own unit."""
    task, w, v, feed = world(learn=False)
    names = task.weights if content == "weights" else task.parameters
    plan = Selection(tuple(tuple(w[n].shape) for n in names), 0.4, layout=layout)
    for normalise, smoothing in product(NORMALISES, (1e-6, 0.1)):
        method = SpectralCoDistillation(
            lam_g=0.03, tau=0.4, layout=layout, content=content, normalise=normalise, smoothing=smoothing
        )
        upload, _ = method.contribute(task, w, {"v": v}, one_step(feed))
        leaves = [w[name].clone().requires_grad_() for name in names]
        unit = sum(task.start[n].square().sum() for n in names)
        if normalise == "none":
            powers = [f.abs().square() for f in planes([task.start[n] for n in names], plan)]
            unit /= sum((p + smoothing**2 * p.mean()).sqrt().sum() for p in powers)
        value = definition([v[n] for n in names], leaves, plan, "kl", normalise, smoothing)
        gradient = torch.autograd.grad(0.03 * unit * value, leaves)
        for name, g in zip(names, gradient, strict=True):
            assert g.norm() > 1e-4
            torch.testing.assert_close(upload[name], w[name] - 0.1 * g, rtol=1e-10, atol=1e-13)
        assert all(torch.equal(upload[name], w[name]) for name in w if name not in names)


def test_complex_l2_is_ditto_on_the_weights():
    task, w, v, feed = world(learn=False)
    method = SpectralCoDistillation(lam_p=1.5, divergence="complex_l2")
    trained = method.personalise(task, {}, {"v": v, "own": w}, one_step(feed))
    for name in task.weights:
        torch.testing.assert_close(trained["v"][name], v[name] - 0.1 * 1.5 * (v[name] - w[name]))


def test_reference_received_or_own():
    """The PM is drawn to the GM received, or to the one just uploaded, which the stored state then drops."""
    task, w, v, feed = world()
    results = {}
    for reference in ("received", "own"):
        method = SpectralCoDistillation(reference=reference)
        upload, c = method.contribute(task, w, {"v": v}, feed)
        after = method.personalise(task, w, c, feed)
        assert after.keys() == method.init(task, w)[1].keys()
        results[reference] = after["v"]
        to = w if reference == "received" else upload
        drawn_to = SpectralCoDistillation(reference="received").personalise(task, to, {"v": v}, feed)
        assert all(torch.equal(after["v"][name], drawn_to["v"][name]) for name in v)
    assert not torch.equal(results["received"]["a.weight"], results["own"]["a.weight"])


def test_both_phases_of_a_whole_cohort_at_once():
    worlds = [world(seed, momentum=0.5) for seed in range(3)]
    task, _, _, feed = worlds[0]
    w = worlds[0][1]
    method = SpectralCoDistillation(reference="own")

    def client(v):
        upload, c = method.contribute(task, w, {"v": v}, feed)
        return upload, method.personalise(task, w, c, feed)

    stacked = {name: torch.stack([other[2][name] for other in worlds]) for name in w}
    upload, c = torch.func.vmap(client)(stacked)
    for row, (_, _, v, _) in enumerate(worlds):
        expected, after = client(v)
        torch.testing.assert_close({name: x[row] for name, x in upload.items()}, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close({name: x[row] for name, x in c["v"].items()}, after["v"], rtol=1e-9, atol=1e-12)
