"""Straight-through gates: the network's own prediction, with the gradient of its surrogate beside its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from robustsearch.models.lwta import LWTA
from robustsearch.models.stochastic import Noise, is_hard, is_random, straight_through
from robustsearch.recipe import GateMode

GATES: list[tuple[GateMode, float | None]] = [("sample", None), ("argmax", None), ("noisy", 0.5)]


def layer(units: int, gate: GateMode, gate_noise: float | None) -> LWTA:
    made = LWTA(
        2 * units, units, temperature=0.67, gate=gate, gate_noise=gate_noise, noise=Noise(3), ibp=None
    )  # fmt: skip
    return made.double().eval()


@pytest.mark.parametrize("units", [2, 4])
@pytest.mark.parametrize(("gate", "gate_noise"), GATES)
def test_the_output_is_the_gate_s_and_the_gradient_has_that_of_the_mean_gate_too(
    units: int, gate: GateMode, gate_noise: float | None
) -> None:
    """By hand: y_u = xi_u h_u, so dy_u/dh_v = xi_u [u = v] + h_u q_u ([u = v] - q_v), q = softmax(h)."""
    h = torch.randn(3, 2 * units, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = layer(units, gate, gate_noise)(h)
    straight = layer(units, gate, gate_noise)
    with straight_through(straight):
        h.requires_grad_()
        y = straight(h)
        assert torch.equal(y, plain)
        cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        (gradient,) = torch.autograd.grad(y, h, cotangent)
    for n in range(3):
        for b in range(2):
            block = slice(b * units, (b + 1) * units)
            logits, q, xi = h[n, block], h[n, block].softmax(0), (plain[n, block] != 0).double()
            jacobian = torch.diag(xi) + (logits * q)[:, None] * (torch.eye(units) - q[None, :])
            torch.testing.assert_close(gradient[n, block], cotangent[n, block] @ jacobian)


@pytest.mark.parametrize(("gate", "gate_noise"), [*GATES, ("mean", None)])
def test_every_gate_but_the_mean_is_hard_and_stays_as_random_as_it_is(
    gate: GateMode, gate_noise: float | None, make: Callable, images: Tensor
) -> None:
    network = make({"lwta": {"gate": gate, "gate_noise": gate_noise}}).eval()
    assert is_hard(network) == (gate != "mean")
    before = is_random(network)
    with straight_through(network):
        assert is_random(network) == before == (gate in ("sample", "noisy"))
        assert is_hard(network) == (gate != "mean")
        network(images)
    assert not is_hard(make({"pni": {}, "smoothing": {}}))
