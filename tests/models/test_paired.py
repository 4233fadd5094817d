"""The fused gate of two units against the plain formulas under autograd, in every rule and layout; gradcheck is in
`test_conformance.py`.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustsearch.models.lwta import LWTA, pair_gate, pair_gate_kl
from robustsearch.models.paired import fits, paired_gate
from robustsearch.models.stochastic import Noise

SHAPES = [(40, 6), (3, 10, 5, 4), (1, 2, 1, 1)]
"""300 pairs, so that the KL has whole groups and a rest; and a single pair."""


def features(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    h = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return h.to(memory_format=torch.channels_last) if len(shape) == 4 else h


def plain(h: Tensor, noise: Tensor | None, scale: float, temperature: float | None) -> tuple[Tensor, Tensor]:
    """Output and KL, one formula after the other."""
    first, second = h[:, ::2], h[:, 1::2]
    margin = noisy = first - second
    if noise is not None:
        moved = margin.movedim(1, -1)
        noisy = margin + scale * noise.view(moved.shape).movedim(-1, 1)
    share = pair_gate(noisy, scale=0.0, temperature=temperature, noise=Noise(0))
    return torch.stack((first * share, second * (1 - share)), dim=2).flatten(1, 2), pair_gate_kl(margin)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("scale", "temperature"), [(0.0, 1.0), (0.0, 0.4), (0.0, None), (1.0, 0.67), (0.5, 1.0), (1.0, None), (2.0, None)]
)
def test_output_kl_and_gradient_are_those_of_the_plain_formulas(
    shape: tuple[int, ...], scale: float, temperature: float | None
) -> None:
    h = features(shape).requires_grad_()
    noise = torch.randn(h.numel() // 2, generator=torch.Generator().manual_seed(1), dtype=h.dtype) if scale else None
    given = None if noise is None else noise.clone()
    y, kl = paired_gate(h, noise=given, scale=scale, temperature=temperature, with_kl=True)
    expected, expected_kl = plain(h, noise, scale, temperature)
    torch.testing.assert_close((y, kl), (expected, expected_kl), rtol=1e-12, atol=1e-14)
    assert y.stride() == h.stride()
    for cotangent in (torch.randn(shape, dtype=h.dtype), features(shape)):  # of another layout, and of the same
        (gradient,) = torch.autograd.grad((y.mul(cotangent).sum(), 3 * kl), h, (None, None), retain_graph=True)
        (reference,) = torch.autograd.grad((expected.mul(cotangent).sum() + 3 * expected_kl), h, retain_graph=True)
        torch.testing.assert_close(gradient, reference, rtol=1e-12, atol=1e-14)


def test_margins_too_large_for_an_exponential_are_sure_and_finite() -> None:
    h = torch.tensor([[1e4, -1e4, -3e4, 3e4, 0.0, 0.0]]).requires_grad_()
    y, kl = paired_gate(h, noise=None, scale=0.0, temperature=1.0, with_kl=True)
    (gradient,) = torch.autograd.grad((y.sum(), kl), h)
    assert torch.equal(y, torch.tensor([[1e4, 0.0, 0.0, 3e4, 0.0, 0.0]]))
    assert kl.item() == pytest.approx(2 * 0.6931471805599453)
    assert torch.equal(gradient, torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.5, 0.5]]))


def test_what_it_takes_and_what_it_leaves_to_the_plain_formulas() -> None:
    assert all(fits(features(shape)) for shape in SHAPES)
    assert not fits(torch.randn(3, 10, 5, 4))
    assert not fits(features((3, 10, 5, 4), torch.bfloat16))


@pytest.mark.parametrize("training", [True, False])
def test_both_layouts_have_one_law(training: bool) -> None:
    """In the mean network exactly, and the layer itself to 5 standard errors of its mean output."""
    layer = LWTA(10, 2, temperature=0.67, gate="sample", gate_noise=None, noise=Noise(0), ibp=None).train(training)
    h = features((3, 10, 5, 4), torch.float32)
    many = h.expand(3000, 3, 10, 5, 4).reshape(-1, 10, 5, 4)
    last, first = many.contiguous(memory_format=torch.channels_last), many.contiguous()
    assert (fits(last), fits(first)) == (True, False)
    one, other = (layer(x).detach().reshape(3000, -1).double() for x in (last, first))
    error = (one.var(dim=0) + other.var(dim=0)).div(3000).sqrt()
    assert ((one.mean(dim=0) - other.mean(dim=0)).abs() <= 5 * error + 1e-6).all()
    layer.mode = "mean"
    torch.testing.assert_close(layer(last), layer(first))
