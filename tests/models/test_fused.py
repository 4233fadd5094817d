"""The passes in C against torch's own operations in float64 under autograd, and what they leave to those."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from networks import Network, images, make, recipe
from torch import Tensor, nn

from robustsearch.attacks.gradient import crafting
from robustsearch.models import fused
from robustsearch.models.kernels import usable
from robustsearch.models.lwta import LWTA, gate_kl
from robustsearch.models.stochastic import Noise, surrogate
from robustsearch.models.wrn import BatchNorm, activated

__all__ = ["images", "make", "recipe"]

Make = Callable[..., Network]

SHAPES = [(3, 16, 5, 4), (2, 8, 1, 1), (40, 24)]
"""Vectors that are no whole number of groups, and a single one for each image."""


@pytest.fixture(autouse=True)
def compiler() -> None:
    if not usable(torch.zeros(1)):
        pytest.skip("there is no C compiler here")


def features(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    h = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return h.to(memory_format=torch.channels_last) if len(shape) == 4 else h


def batch_norm(channels: int) -> BatchNorm:
    """One of running statistics, which are not those of a new one."""
    norm = BatchNorm(channels)
    state = torch.Generator().manual_seed(1)
    norm.load_state_dict(
        {key: torch.rand(value.shape, generator=state) + 0.3 for key, value in norm.state_dict().items()}
    )
    return norm.eval().requires_grad_(False)


def blocks(h: Tensor, units: int) -> Tensor:
    return h.unflatten(1, (-1, units))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) == 4])
@pytest.mark.parametrize("units", [1, 2, 4, 8])
@pytest.mark.parametrize("weighed", [True, False])
def test_norm_and_activation_with_their_gradient(shape: tuple[int, ...], units: int, weighed: bool) -> None:
    x, norm = features(shape).requires_grad_(), batch_norm(shape[1])
    factor = torch.rand(shape[1], generator=torch.Generator().manual_seed(2)) if weighed else None
    y = fused.normalised(norm, x, units=units, factor=factor)
    assert y.stride() == x.stride()
    wide = x.detach().double().requires_grad_()
    h = copy.deepcopy(norm).double()(wide)
    expected = h.relu() if units == 1 else (blocks(h, units).softmax(2) * blocks(h, units)).flatten(1, 2)
    if factor is not None:
        expected = expected * factor.double().view(-1, 1, 1)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=2e-6)
    for cotangent in (features(shape, 3), features(shape, 3).contiguous()):
        (gradient,) = torch.autograd.grad(y, x, cotangent, retain_graph=True)
        (reference,) = torch.autograd.grad(expected, wide, cotangent.double(), retain_graph=True)
        torch.testing.assert_close(gradient.double(), reference, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("units", [2, 4, 8])
@pytest.mark.parametrize("temperature", [0.67, 1.5])
def test_relaxed_gate_is_a_softmax_of_its_noise_with_that_gradient(
    shape: tuple[int, ...], units: int, temperature: float
) -> None:
    """Its noise, up to a constant of each block, is read off its output."""
    h = features(shape).requires_grad_()
    y, kl = fused.relaxed(h, units=units, temperature=temperature, seed=7)
    wide = h.detach().double().requires_grad_()
    xi = blocks(y.detach().double() / wide.detach(), units)
    torch.testing.assert_close(xi.sum(2), torch.ones_like(xi.sum(2)), rtol=0, atol=2e-6)
    noise = temperature * xi.log() - blocks(wide, units).detach()
    expected = (((blocks(wide, units) + noise) / temperature).softmax(2) * blocks(wide, units)).flatten(1, 2)
    expected_kl = gate_kl(blocks(wide, units))
    torch.testing.assert_close(kl.double(), expected_kl, rtol=1e-5, atol=1e-6)
    cotangent = features(shape, 3)
    (gradient,) = torch.autograd.grad((y.mul(cotangent).sum(), 3 * kl), h, retain_graph=True)
    (reference,) = torch.autograd.grad(
        expected.mul(cotangent.double()).sum() + 3 * expected_kl, wide, retain_graph=True
    )
    torch.testing.assert_close(gradient.double(), reference, rtol=1e-5, atol=5e-6)
    (alone,) = torch.autograd.grad(kl, h)
    (reference,) = torch.autograd.grad(expected_kl, wide)
    torch.testing.assert_close(alone.double(), reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("units", [2, 4, 8])
def test_noise_is_gumbel(units: int) -> None:
    """Log xi_0 - log xi_1 at equal logits and temperature 1 is logistic: its distribution function, by Kolmogorov."""
    count = 40_000
    y, _ = fused.relaxed(torch.ones(count, 8), units=units, temperature=1.0, seed=11)
    difference = (y[:, 0].double().log() - y[:, 1].double().log()).sort().values
    steps = torch.arange(1, count + 1, dtype=torch.float64) / count
    distance = (torch.sigmoid(difference) - steps).abs().max().item()
    assert distance < 1.95 / math.sqrt(count), "the 0.1% level"
    other = y[:, units % 8].double()  # another block, or the same where there is but one
    if units < 8:
        assert abs(torch.corrcoef(torch.stack([y[:, 0].double(), other]))[0, 1]) < 4 / math.sqrt(count)
    _, counts = torch.unique(y.argmax(1), return_counts=True)
    assert len(counts) == 8
    assert ((counts / count - 1 / 8).abs() < 4 * math.sqrt(7 / 64 / count)).all()


def test_equal_seeds_draw_alike_and_others_do_not() -> None:
    h = features((3, 16, 5, 4))
    one, again, other = (fused.relaxed(h, units=2, temperature=0.67, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_margins_too_large_for_an_exponential_are_sure_and_finite() -> None:
    h = torch.tensor([[3e4, -3e4, -1e4, 1e4, 0.0, 0.0, 1e4, 1e4]]).requires_grad_()
    y, kl = fused.relaxed(h, units=2, temperature=0.67, seed=0)
    (gradient,) = torch.autograd.grad((y.sum(), kl), h)
    torch.testing.assert_close(y.detach()[0, :4], torch.tensor([3e4, 0.0, 0.0, 1e4]), rtol=0, atol=1e-30)
    assert kl.item() == pytest.approx(2 * math.log(2), abs=1e-6)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("units", [1, 2])
def test_what_is_not_a_number_stays_none(units: int) -> None:
    x = features((1, 8, 1, 2))
    x[0, 0, 0, 0] = torch.nan
    y = fused.normalised(batch_norm(8), x, units=units, factor=None)
    assert y[0, 0, 0, 0].isnan()
    assert y[0, :, 0, 1].isfinite().all()


def test_what_it_leaves_to_torch() -> None:
    assert fused.fits(features((3, 16, 5, 4)), 2)
    assert not fused.fits(features((3, 16, 5, 4)).contiguous(), 2)
    assert not fused.fits(features((3, 16, 5, 4)).double(), 2)
    assert not fused.fits(features((3, 12, 5, 4)), 2)
    assert not fused.fits(features((3, 48, 5, 4)), 3)
    assert not fused.fits(features((3, 16, 5, 4)), 16)
    torch.set_num_threads(2)
    try:
        assert not fused.fits(features((3, 16, 5, 4)), 2)
    finally:
        torch.set_num_threads(1)


def layer(gate: str = "mean", units: int = 2) -> LWTA:
    return LWTA(16, units, temperature=0.67, gate=gate, gate_noise=None, noise=Noise(0), ibp=None)


@pytest.mark.parametrize("activation", [nn.ReLU(), layer(), layer(units=4)], ids=["ReLU", "LWTA-2", "LWTA-4"])
def test_a_network_takes_it_where_only_pixels_learn_and_no_hook_listens(activation: nn.Module) -> None:
    x, norm = features((3, 16, 5, 4)).requires_grad_(), batch_norm(16)
    activation.eval()

    def one_pass() -> bool:
        y = activated(norm, activation, x)
        torch.testing.assert_close(y, activation(norm(x)), rtol=1e-5, atol=2e-6)
        return type(y.grad_fn).__name__ == "_NormalisedBackward"

    assert one_pass()
    norm.requires_grad_(True)
    assert not one_pass()
    norm.requires_grad_(False)
    hook = activation.register_forward_hook(lambda *_: None)
    assert not one_pass()
    hook.remove()
    assert one_pass()


@pytest.mark.parametrize("gate", ["sample", "argmax"])
def test_hard_gates_are_not_the_mean_gate(gate: str) -> None:
    x, norm, hard = features((3, 16, 5, 4)).requires_grad_(), batch_norm(16), layer(gate).eval()
    assert type(activated(norm, hard, x).grad_fn).__name__ != "_NormalisedBackward"
    with surrogate(hard):
        assert type(activated(norm, hard, x).grad_fn).__name__ == "_NormalisedBackward"
    hard.mode = "straight"
    assert type(activated(norm, hard, x).grad_fn).__name__ != "_NormalisedBackward"


def test_a_gate_that_trains_behind_a_frozen_norm_draws() -> None:
    x, norm, gate = features((3, 16, 5, 4)), batch_norm(16), layer().train()
    assert not torch.equal(activated(norm, gate, x), activated(norm, gate, x))
    assert gate.kl()["gate"] > 0


@pytest.mark.parametrize("fields", [{}, {"lwta": {}}, {"lwta": {"units": 4, "ibp": {}}}], ids=["ReLU", "LWTA-2", "IBP"])
def test_the_gradient_in_the_pixels_is_that_of_torch(
    fields: dict[str, object], make: Make, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make(fields)
    network.train()(images)  # running statistics that are not those of a new network
    found = []
    for fits in (fused.fits, lambda x, units: False):
        monkeypatch.setattr(fused, "fits", fits)
        pixels = images.clone().requires_grad_()
        with crafting(network), surrogate(network):
            (gradient,) = torch.autograd.grad(network(pixels).logsumexp(1).sum(), pixels)
        found.append(gradient)
    assert found[0].abs().max() > 0
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5 * float(found[1].abs().max()))
